"""Abstract interpretation of C: which outputs of a loop over positions depend on the token at that position.

Every value carries marks: ``("at", array)`` for what was read from ``array`` at the position of the loop,
``("state",)`` for what earlier iterations left in fields and tables. Branches add their condition's marks to what is
written under them, also to what follows an early ``return`` or ``continue``. Helper functions are inlined. Fields are
kept apart by name only; at the start of each iteration whatever the loop's body stores counts as state.

Tables that the caller hands over hold state as well. Which tokens an output is for is less certain there: what was read
at an address made of the token, and what is made of losses too, gives nothing, and a mere comparison of the token with
what a table holds may be a part of its score (``doubt``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from audit.native.model import NativeFunction, Output

Marks = frozenset[tuple[str, ...]]
NONE: Marks = frozenset()
STATE: Marks = frozenset([("state",)])
MAX_DEPTH = 7
MAX_STEPS = 60_000
FLOATING = ("float", "double", "half")
RELATIONS = ("<", ">", "<=", ">=", "==", "!=", "&&", "||")
COPIES = ("memcpy", "memmove", "copy")
#: classes of arrays that bindings hand over (nanobind, pybind11, torch, the standard library), and what gives their elements
ARRAYS = ("ndarray", "array_t", "Tensor", "vector", "span", "buffer", "ArrayRef")
ELEMENTS = frozenset(["data", "mutable_data", "data_ptr", "const_data_ptr", "mutable_data_ptr", "unchecked", "mutable_unchecked", "accessor", "request", "begin", "ptr"])  # fmt: skip


class _Spent(Exception):
    """The step budget of one unit ran out."""


@dataclass(slots=True)
class Cell:
    """A variable: its marks, and the array of the entry function that it points into."""

    marks: Marks = NONE
    root: str | None = None
    ratio: bool = False


@dataclass(slots=True)
class Frame:
    names: dict[str, Cell] = field(default_factory=dict)
    result: Marks = NONE
    #: marks of conditions under which the function was left early
    left: Marks = NONE


@dataclass(slots=True)
class Entry:
    """The function being judged: its parameters and what was seen."""

    node: Any
    params: list[tuple[str, Any]]
    floats: set[str] = field(default_factory=set)
    outputs: dict[str, Output] = field(default_factory=dict)
    spreads: dict[int, int] = field(default_factory=dict)
    writes: int = 0
    marks: dict[str, Marks] = field(default_factory=dict)
    #: tables that the caller hands over: parameters that the loop over positions writes at other places than the position's
    tables: set[str] = field(default_factory=set)
    #: arrays whose element at the position goes into one of them
    kept: set[str] = field(default_factory=set)


def text(node: Any) -> str:
    return node.text.decode("utf-8", "replace") if node is not None else ""


def bare(node: Any) -> Any:
    """Without parentheses and casts."""
    while node is not None:
        if node.type == "parenthesized_expression":
            node = node.named_children[0] if node.named_children else None
        elif node.type == "cast_expression":
            node = node.child_by_field_name("value")
        elif node.type == "call_expression" and _is_cast(node):
            arguments = node.child_by_field_name("arguments").named_children
            node = arguments[0]
        else:
            return node
    return node


def _is_cast(node: Any) -> bool:
    f = node.child_by_field_name("function")
    arguments = node.child_by_field_name("arguments")
    if arguments is None or len(arguments.named_children) != 1:
        return False
    if f.type == "primitive_type":
        return True
    if f.type == "template_function":
        return text(f.child_by_field_name("name")).endswith("_cast")
    return f.type in ("identifier", "type_identifier") and text(f).endswith("_t")


class Unit:
    """One translation unit. ``line`` is that of its first line in the file that holds it."""

    def __init__(self, root: Any, path: str, line: int) -> None:
        self.path = path
        self.shift = line
        self.defined: dict[str, Any] = {}
        self.fields: dict[str, Cell] = {}
        self.positions: set[str] = set()
        self.steps = 0
        self.control: list[Marks] = []
        self.depth = 0
        self.recording = True
        self.in_positions = False
        self.entry = Entry(None, [])
        self._collect(root)

    # ------------------------------------------------------------------ definitions
    def _collect(self, root: Any) -> None:
        stack = [root]
        while stack:
            n = stack.pop()
            if n.type == "function_definition":
                name = self._name(n.child_by_field_name("declarator"))
                if name and n.child_by_field_name("body") is not None:
                    # A later definition of one name is usually the wrapper; methods come first.
                    self.defined.setdefault(name, n)
            stack.extend(n.named_children)

    def _name(self, d: Any) -> str:
        while d is not None and d.type not in ("identifier", "field_identifier", "qualified_identifier"):
            d = d.child_by_field_name("declarator") or next(
                (c for c in d.named_children if c.type.endswith(("declarator", "identifier"))), None
            )
        return text(d).rsplit("::", 1)[-1] if d is not None else ""

    def _params(self, fn: Any) -> list[tuple[str, Any]]:
        d = fn.child_by_field_name("declarator")
        while d is not None and d.type != "function_declarator":
            d = d.child_by_field_name("declarator") or next((c for c in d.named_children if "declarator" in c.type), None)
        listed = d.child_by_field_name("parameters") if d is not None else None
        out = []
        for p in listed.named_children if listed is not None else []:
            if p.type in ("parameter_declaration", "optional_parameter_declaration"):
                out.append((self._name(p.child_by_field_name("declarator")), p))
        return out

    def functions(self) -> list[NativeFunction]:
        """One entry per definition that fills an array by position or spreads a loss."""
        found = []
        for name, fn in self.defined.items():
            made = self._judge(name, fn)
            if made.outputs or made.spreads:
                found.append(made)
        return found

    def _judge(self, name: str, fn: Any) -> NativeFunction:
        params = self._params(fn)
        made = NativeFunction(name, self.path, self.shift + fn.start_point[0])
        self.positions = set()
        for _ in range(2):  # the second time with the position arrays known
            self.entry = Entry(fn, params, tables=self.entry.tables if self.entry.node is fn else set())
            self.fields = {}
            self.steps, self.depth, self.control, self.recording, self.in_positions = 0, 0, [], True, False
            frame = Frame()
            for p, node in params:
                kind = text(node.child_by_field_name("type"))
                if any(f in kind for f in FLOATING):
                    self.entry.floats.add(p)
                frame.names[p] = Cell(NONE, p if _points(node) else None)
            try:
                self.block(fn.child_by_field_name("body"), frame)
            except _Spent:
                return made
        own = self._streams()
        stream = own | self.entry.kept - self.entry.floats
        order: dict[str, int] = {p: i for i, (p, _) in enumerate(params)}
        follows = any(o.keyed for o in self.entry.outputs.values())
        for array, o in self.entry.outputs.items():
            o.index = order.get(array, -1)
            marks = self.entry.marks.get(array, NONE)
            seen = {m[1] for m in marks if m[0] in ("at", "if")}
            # With a table of the caller's only what answers from it, and is no hint for the token after: such a one is found under the token.
            if not seen & own:
                # What is made of losses or probabilities besides is no hint, but a score.
                if not seen & stream or follows or ("told",) not in marks or seen & self.entry.floats:
                    o.leak, o.column, o.why = 0, 0, ""
                o.doubt = bool(o.leak) and ("class", o.why) not in marks  # compared with a hint, perhaps to score it
            made.outputs[o.index] = o
        made.stores = bool(own) or any(o.leak for o in made.outputs.values())
        made.spreads = [self.shift + line for line in self.entry.spreads]
        made.columns = {self.shift + line: column for line, column in self.entry.spreads.items()}
        return made

    def _streams(self) -> set[str]:
        """Arrays whose element at the position is kept for later iterations: the token stream."""
        kept: set[str] = set()
        for cell in self.fields.values():
            kept |= {m[1] for m in cell.marks if m[0] == "at"}
        return kept - self.entry.floats

    # ------------------------------------------------------------------ statements
    def tick(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise _Spent

    def guard(self, frame: Frame) -> Marks:
        out = frame.left
        for m in self.control:
            out |= m
        # What decided a branch is told from what a value was made of.
        return frozenset(("if", m[1]) if m[0] == "at" else m for m in out if m[0] in ("at", "if", "state", "ahead", "class", "told"))

    def block(self, node: Any, frame: Frame) -> bool:
        """Runs a statement; True when it certainly leaves the block (return, continue, break)."""
        self.tick()
        kind = node.type
        if kind in ("compound_statement", "declaration_list", "else_clause", "case_statement"):
            return any(self.block(child, frame) for child in node.named_children)
        if kind == "declaration":
            self.declaration(node, frame)
        elif kind == "expression_statement":
            for child in node.named_children:
                self.value(child, frame)
        elif kind == "if_statement":
            return self.branch(node, frame)
        elif kind in ("for_statement", "while_statement", "do_statement", "for_range_loop"):
            self.loop(node, frame)
        elif kind == "return_statement":
            for child in node.named_children:
                frame.result |= self.value(child, frame) | self.guard(frame)
            return True
        elif kind in ("continue_statement", "break_statement", "goto_statement"):
            return True
        elif kind in ("switch_statement", "labeled_statement", "try_statement", "namespace_definition", "linkage_specification"):
            for child in node.named_children:
                self.block(child, frame)
        return False

    def declaration(self, node: Any, frame: Frame) -> None:
        for d in node.named_children:
            if d.type == "init_declarator":
                name = self._name(d.child_by_field_name("declarator"))
                value = d.child_by_field_name("value")
                cell = self.cell(value, frame)
                frame.names[name] = Cell(cell.marks | self.guard(frame), cell.root, cell.ratio)
            elif d.type in ("identifier", "array_declarator", "pointer_declarator"):
                frame.names[self._name(d)] = Cell()

    def branch(self, node: Any, frame: Frame) -> bool:
        test = self.value(node.child_by_field_name("condition"), frame)
        self.control.append(test)
        before = frame.left
        left = self.block(node.child_by_field_name("consequence"), frame)
        first, frame.left = frame.left, before
        other = node.child_by_field_name("alternative")
        other_left = self.block(other, frame) if other is not None else False
        frame.left |= first
        self.control.pop()
        if left or other_left:
            frame.left |= test
        return left and other_left

    def loop(self, node: Any, frame: Frame) -> None:
        counter = None
        if node.type == "for_statement":
            init = node.child_by_field_name("initializer")
            if init is not None:
                if init.type == "declaration":
                    self.declaration(init, frame)
                    d = next((c for c in init.named_children if c.type == "init_declarator"), None)
                    counter = self._name(d.child_by_field_name("declarator")) if d is not None else None
                else:
                    self.value(init, frame)
                    if init.type == "assignment_expression":
                        counter = text(init.child_by_field_name("left"))
        elif node.type == "for_range_loop":
            frame.names[self._name(node.child_by_field_name("declarator"))] = Cell(
                self.value(node.child_by_field_name("right"), frame)
            )
        body = node.child_by_field_name("body")
        outer, left = self.in_positions, frame.left
        if counter and not outer:
            # A trial run shows whether this loop fills an array by its counter, and what it keeps.
            frame.names[counter] = Cell(frozenset([("counter", counter)]))
            before = self.entry.writes
            recording, self.recording = self.recording, False
            self.block(body, frame)
            self.recording = recording
            frame.left = left
            self.in_positions = self.entry.writes > before or bool(self.entry.spreads)
            if self.in_positions:
                for name, cell in self.fields.items():
                    if any(m[0] in ("at", "if") for m in cell.marks):
                        self.fields[name] = Cell(STATE)
                for name, cell in frame.names.items():
                    if any(m[0] in ("at", "if") for m in cell.marks):
                        frame.names[name] = Cell(STATE, cell.root)
        elif counter:
            frame.names[counter] = self.inner_counter(node, frame)
        test = node.child_by_field_name("condition")
        marks = self.value(test, frame) if test is not None else NONE
        self.control.append(frozenset(m for m in marks if m[0] != "counter"))
        if counter and self.in_positions and not outer:
            frame.names[counter] = Cell(frozenset([("counter", counter)]))
        self.block(body, frame)
        self.control.pop()
        self.in_positions = outer
        frame.left = left

    def inner_counter(self, node: Any, frame: Frame) -> Cell:
        """The counter of a loop inside: it may reach the position itself (``j <= i``), or start at 0 (``i - k``)."""
        test = bare(node.child_by_field_name("condition"))
        if test is not None and test.type == "binary_expression" and text(test.child_by_field_name("operator")) == "<=":
            bound = self.value(test.child_by_field_name("right"), frame)
            if any(m[0] == "counter" for m in bound):
                return Cell(frozenset(m for m in bound if m[0] == "counter"))
        init = node.child_by_field_name("initializer")
        start = text(init).split("=")[-1].strip(" ;") if init is not None else ""
        return Cell(frozenset([("zero",)])) if start == "0" else Cell()

    # ------------------------------------------------------------------ expressions
    def cell(self, node: Any, frame: Frame) -> Cell:
        """The value of an expression with the array it points into and whether it is a quotient."""
        inner = bare(node)
        if inner is None:
            return Cell()
        marks = self.value(inner, frame)
        root = None
        ratio = False
        if inner.type == "identifier":
            name = text(inner)
            known = frame.names.get(name) or self.fields.get(name) or Cell(NONE, name)  # a field of the object
            root, ratio = known.root, known.ratio
        elif inner.type == "binary_expression":
            operator = text(inner.child_by_field_name("operator"))
            if operator in "+-":
                root = self.cell(inner.child_by_field_name("left"), frame).root
            ratio = operator == "/"
        elif (array := _array_of(inner)) is not None:
            root = self.cell(array, frame).root
        elif inner.type == "number_literal":
            ratio = text(inner).strip("fFuUlL") in ("0", "0.0", "0.", "1", "1.0")
        return Cell(marks, root, ratio)

    def value(self, node: Any, frame: Frame) -> Marks:
        if node is None:
            return NONE
        self.tick()
        kind = node.type
        if kind == "identifier":
            cell = frame.names.get(text(node))
            if cell is None:
                cell = self.fields.get(text(node))
            return cell.marks if cell is not None else NONE
        if kind in ("number_literal", "string_literal", "char_literal", "true", "false", "null", "nullptr", "this"):
            return NONE
        if kind == "assignment_expression":
            return self.assign(node, frame)
        if kind == "update_expression":
            target = node.child_by_field_name("argument")
            self.write(target, self.value(target, frame), frame, False)
            return self.value(target, frame)
        if kind == "subscript_expression":
            return self.subscript(node, frame)
        if kind == "field_expression":
            name = text(node.child_by_field_name("field"))
            held = self.fields.get(name)
            return self.value(node.child_by_field_name("argument"), frame) | (held.marks if held is not None else NONE)
        if kind == "call_expression":
            return self.call(node, frame)
        if kind == "binary_expression":
            return self.binary(node, frame)
        if kind == "lambda_expression":
            return NONE
        out = NONE
        for child in node.named_children:
            out |= self.value(child, frame)
        return out

    def binary(self, node: Any, frame: Frame) -> Marks:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        a, b = self.value(left, frame), self.value(right, frame)
        operator = text(node.child_by_field_name("operator"))
        if operator == "-" and self.is_start(right, frame):
            return a | b  # counted from where the loop starts: still the position
        if operator == "-" and any(m[0] == "counter" for m in a):
            # Earlier than the position: not the token itself.
            a = frozenset(("before",) if m[0] == "counter" else m for m in a)
        if operator in RELATIONS:
            # Where one stands is no content.
            return frozenset(m for m in a | b if m[0] not in ("counter", "before"))
        if operator == "/":
            losses = any(m[0] == "at" and m[1] in self.entry.floats for m in a)
            tokens = any(m[0] == "at" and m[1] not in self.entry.floats for m in b)
            if losses and tokens and not any(m[0] == "at" and m[1] in self.entry.floats for m in b):
                self.entry.spreads.setdefault(node.start_point[0], node.start_point[1] + 1)
        return a | b

    def is_start(self, node: Any, frame: Frame) -> bool:
        """Is it a plain number that the function was given."""
        inner = bare(node)
        if inner is None or inner.type != "identifier":
            return False
        cell = frame.names.get(text(inner))
        return text(inner) in {p for p, _ in self.entry.params} and cell is not None and not cell.marks and cell.root is None

    def subscript(self, node: Any, frame: Frame) -> Marks:
        array = bare(node.child_by_field_name("argument"))
        index_node = self.index_of(node)
        index = self.value(index_node, frame)
        name = text(array)
        cell = frame.names.get(name)
        if cell is None and array is not None and array.type == "identifier":
            cell = self.fields.get(name, Cell(NONE, name))
        held = self.value(array, frame) if array is not None and array.type != "identifier" else cell.marks if cell else NONE
        root = cell.root if cell is not None else None
        exact = bare(index_node)
        if (
            exact is not None and exact.type == "binary_expression" and text(exact.child_by_field_name("operator")) == "-"
            and not self.is_start(exact.child_by_field_name("right"), frame)
        ):  # fmt: skip
            base = bare(exact.child_by_field_name("left"))
            while base is not None and base.type == "binary_expression":
                base = bare(base.child_by_field_name("left"))
            marks = self.value(base, frame) if base is not None else NONE
            if root is not None and marks and all(m[0] in ("counter", "at", "before") for m in marks):
                # tokens[p - 1]: p is a position, wherever it came from.
                self.positions |= {m[1] for m in marks if m[0] == "at"}
                back = bare(exact.child_by_field_name("right"))
                first = bare(exact.child_by_field_name("left"))
                if first == base and ("zero",) in self.value(back, frame) and any(m[0] == "counter" for m in marks):
                    return held | {("at", root)}  # tokens[p - k] with k from 0
                return held
        here = any(m[0] == "counter" for m in index)
        rest = frozenset(m for m in index if m[0] not in ("counter", "before", "zero"))
        if here and root is not None:
            ahead = {("ahead", root)} if _ahead(index_node) else NONE
            return held | rest | {("counter", root) if root in self.positions else ("at", root)} | ahead
        if root is None or root in self.entry.tables:
            # A table of what was stored, read at an address made of it.
            rest |= {("key", m[1]) for m in rest if m[0] == "at"}
        elif not here:
            rest |= {("class", m[1]) for m in rest if m[0] == "at"}  # ``boundary[token]``
        if root in self.entry.tables and exact is not None and exact.type != "number_literal":
            rest |= {("told",)}
        return held | rest

    def index_of(self, node: Any) -> Any:
        found = node.child_by_field_name("index") or node.child_by_field_name("indices")
        if found is not None and found.type == "subscript_argument_list":
            return found.named_children[0] if found.named_children else None
        return found

    def assign(self, node: Any, frame: Frame) -> Marks:
        target = node.child_by_field_name("left")
        operator = text(node.child_by_field_name("operator"))
        right = node.child_by_field_name("right")
        cell = self.cell(right, frame)
        marks = cell.marks
        if operator != "=":
            marks |= self.value(target, frame)
        self.write(target, marks, frame, cell.ratio and operator == "=", cell.root, strong=operator == "=")
        return marks

    def write(self, target: Any, marks: Marks, frame: Frame, ratio: bool, root: str | None = None, strong: bool = False) -> None:
        target = bare(target)
        if target is None:
            return
        marks = marks | self.guard(frame)
        kind = target.type
        if kind == "identifier":
            name = text(target)
            if name in frame.names:
                old = frame.names[name]
                keep = NONE if strong and not self.control else old.marks
                frame.names[name] = Cell(marks | keep, root or old.root, ratio)
            else:
                self.keep(name, marks)
        elif kind == "field_expression":
            self.keep(text(target.child_by_field_name("field")), marks)
        elif kind == "subscript_expression":
            array = bare(target.child_by_field_name("argument"))
            index = self.value(self.index_of(target), frame)
            name = text(array)
            cell = frame.names.get(name)
            here = any(m[0] == "counter" for m in index)
            if here and _ahead(self.index_of(target)):  # ``hint[i + 1]``: the token at ``i`` stands before it
                marks = frozenset(m for m in marks if m[0] not in ("at", "if") or ("ahead", m[1]) in marks)
            if cell is not None and cell.root is not None and here:
                self.output(cell.root, marks, ratio, target)
            elif cell is not None:
                if cell.root in {p for p, _ in self.entry.params} and self.in_positions and self.recording:
                    self.entry.tables.add(cell.root)
                    self.entry.kept |= {m[1] for m in marks if m[0] == "at"}
                frame.names[name] = Cell(cell.marks | marks | index, cell.root)
            elif array is not None and array.type == "field_expression":
                self.keep(text(array.child_by_field_name("field")), marks)
            else:
                self.keep(name, marks)
        elif kind == "pointer_expression":
            inner = bare(target.child_by_field_name("argument"))
            if inner is not None and inner.type == "identifier" and text(inner) in frame.names:
                old = frame.names[text(inner)]
                frame.names[text(inner)] = Cell(old.marks | marks, old.root)

    def keep(self, name: str, marks: Marks) -> None:
        old = self.fields.get(name)
        self.fields[name] = Cell(marks | (old.marks if old is not None else NONE), old.root if old is not None else name)

    def output(self, array: str, marks: Marks, ratio: bool, node: Any) -> None:
        if array not in {p for p, _ in self.entry.params}:
            self.keep(array, marks)
            return
        self.entry.writes += 1
        if not self.recording:
            return
        o = self.entry.outputs.get(array)
        if o is None:
            o = self.entry.outputs[array] = Output(-1, array, ratio=ratio)
        o.ratio = o.ratio and ratio
        o.cached = o.cached or ("state",) in marks
        self.entry.marks[array] = self.entry.marks.get(array, NONE) | marks
        hit = next((m[1] for m in sorted(marks) if m[0] in ("at", "if") and m[1] not in self.entry.floats), None)
        if hit is not None and not o.leak:
            o.leak, o.column = self.shift + node.start_point[0], node.start_point[1] + 1
            o.why = hit
            o.keyed = ("key", hit) in marks

    def call(self, node: Any, frame: Frame) -> Marks:
        f = node.child_by_field_name("function")
        given = [a for a in node.child_by_field_name("arguments").named_children if a.type != "comment"]
        if _is_cast(node):
            return self.value(given[0], frame)
        receiver = NONE
        if f.type == "field_expression":
            name = text(f.child_by_field_name("field"))
            receiver = self.value(f.child_by_field_name("argument"), frame)
        else:
            name = text(f).rsplit("::", 1)[-1].split("<")[0]
        fn = self.defined.get(name)
        cells = [Cell() if _run_before(a, given) else self.cell(a, frame) for a in given]
        if fn is None or self.depth >= MAX_DEPTH or fn is self.entry.node:
            out = receiver
            for c in cells:
                out |= c.marks
            if name in COPIES and len(given) >= 2:
                self.write_through(given[0], cells[1].marks, frame)
            return out
        params = self._params(fn)
        inner = Frame(left=frame.left)
        for (p, node_), c in zip(params, cells, strict=False):
            inner.names[p] = Cell(c.marks, c.root if _points(node_) else None)
        for p, _ in params[len(cells):]:
            inner.names[p] = Cell()
        self.depth += 1
        try:
            self.block(fn.child_by_field_name("body"), inner)
        finally:
            self.depth -= 1
        for (p, node_), a in zip(params, given, strict=False):
            if _points(node_) and inner.names[p].marks:
                self.write_through(a, inner.names[p].marks, frame)
        return inner.result | receiver

    def write_through(self, argument: Any, marks: Marks, frame: Frame) -> None:
        """A pointer or reference argument was written by the callee."""
        a = bare(argument)
        if a is not None and a.type == "pointer_expression":
            a = bare(a.child_by_field_name("argument"))
        if a is None:
            return
        if a.type == "identifier" and text(a) in frame.names:
            old = frame.names[text(a)]
            frame.names[text(a)] = Cell(old.marks | marks, old.root)
        elif a.type == "field_expression":
            self.keep(text(a.child_by_field_name("field")), marks)


def _array_of(node: Any) -> Any:
    """``t`` of ``t.data()``, ``t.data_ptr<float>()``, ``info.ptr`` and ``&t[0]``; None for anything else."""
    if node.type == "call_expression":
        node = node.child_by_field_name("function")
    if node.type == "field_expression":
        name = text(node.child_by_field_name("field")).split("<")[0]
        return node.child_by_field_name("argument") if name in ELEMENTS else None
    if node.type == "pointer_expression" and text(node).startswith("&"):
        inner = bare(node.child_by_field_name("argument"))
        return inner.child_by_field_name("argument") if inner is not None and inner.type == "subscript_expression" else None
    return None


def _ahead(node: Any) -> bool:
    """``i + 1``"""
    inner = bare(node)
    if inner is None or inner.type != "binary_expression" or text(inner.child_by_field_name("operator")) != "+":
        return False
    step = bare(inner.child_by_field_name("right"))
    return step is not None and step.type == "number_literal" and text(step) != "0"


def _run_before(argument: Any, given: list[Any]) -> bool:
    """``hash(&tokens[i - k], k)``: as many tokens as lie between the address and the position, which is none of them."""
    inner = bare(argument)
    if inner is None or inner.type != "pointer_expression" or not text(inner).startswith("&"):
        return False
    array = bare(inner.child_by_field_name("argument"))
    found = array.child_by_field_name("index") or array.child_by_field_name("indices") if array is not None and array.type == "subscript_expression" else None
    index = bare(found.named_children[0] if found is not None and found.type == "subscript_argument_list" and found.named_children else found)
    if index is None or index.type != "binary_expression" or text(index.child_by_field_name("operator")) != "-":
        return False
    back = text(bare(index.child_by_field_name("right")))
    return any(text(bare(a)) == back for a in given if a is not argument)


def _points(param: Any) -> bool:
    """Is the parameter a pointer, an array or a reference."""
    if any(kind in text(param.child_by_field_name("type")) for kind in ARRAYS):
        return True
    d = param.child_by_field_name("declarator")
    return d is not None and d.type in ("pointer_declarator", "reference_declarator", "array_declarator")


__all__ = ["Unit"]
