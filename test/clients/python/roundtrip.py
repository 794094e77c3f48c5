"""What the Python clients of test/clients share; the protocol is in that folder's doc.go."""
import sys

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
CHUNK = 20
PATIENCE = 120  # seconds


def arguments():
    """HOST:PORT PREFIX ROUNDS RECORDS"""
    return sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def record(codec, i, nulls=True):
    """expected(full or noNulls, codec, i) of the harness: key, value, headers."""
    repeats = 5000 if i % 97 == 96 else i % 50
    key = None if i % 10 == 9 else b"k%d" % (i % 17)
    value = None if i % 13 == 12 and key is not None else ("%s-%d-" % (codec, i) + "varve " * repeats).encode()
    headers = [("seq", b"%d" % i), ("bytes", bytes([0, 255, i % 256])), ("empty", b"")] + ([("null", None)] if nulls else [])
    return key, value, headers


def hexed(b):
    return "-" if b is None else "x" + bytes(b).hex()


def show(topic, partition, offset, key, value, headers):
    pairs = ",".join("%s=%s" % (name, hexed(v)) for name, v in headers or [])
    sys.stdout.write("R %s %d %d %s %s %s\n" % (topic, partition, offset, hexed(key), hexed(value), pairs))


def half():
    print("HALF", flush=True)
    if not sys.stdin.readline():
        sys.exit("the harness is gone")


def chunks(first, last):
    for start in range(first, last, CHUNK):
        yield range(start, min(start + CHUNK, last))
