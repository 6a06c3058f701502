"""What the tests of M1 and M3 share: a program's byte table, and the bytes of each target."""

from __future__ import annotations

TABLE = """
import sentencepiece as spm
sp = spm.SentencePieceProcessor(model_file="data/tokenizers/fineweb_1024_bpe.model")
base, space, bound = np.zeros(1024, np.int64), np.zeros(1024, bool), np.ones(1024, bool)
for i in range(sp.vocab_size()):
    if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
        continue
    bound[i] = False
    if sp.is_byte(i):
        base[i] = 1
        continue
    piece = sp.id_to_piece(i)
    if piece.startswith("\\u2581"):
        space[i], piece = True, piece[1:]
    base[i] = len(piece.encode("utf-8"))
base, space, bound = torch.from_numpy(base), torch.from_numpy(space), torch.from_numpy(bound)
def each(x, y):
    return base[y] + (space[y] & ~bound[x]).long()
"""
