package gzip

import "encoding/binary"

// Header begins a member (RFC 1952, section 2.3): deflate, no name, no time, and of no
// particular system.
const Header = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// Flush is an empty stored block. It comes behind the last stored block of a write: Go's decoder
// gives its reader what it has at such a block, and not at the end of others. (A piece ends with
// one by itself.)
const Flush = "\x00\x00\x00\xff\xff"

// MaxStored is how many bytes a stored block takes (RFC 1951, section 3.2.4).
const MaxStored = 1<<16 - 1

// headerSize is how many bytes come before those of a stored block.
const headerSize = 5

// Blocks that are stored, and whether they are the last of their member.
const (
	storedBlock     = 0
	lastStoredBlock = 1
)

// AppendStoredHeader appends what comes before the n bytes of a stored block, at most
// MaxStored.
func AppendStoredHeader(b []byte, n int) []byte { return appendBlockHeader(b, storedBlock, n) }

func appendBlockHeader(b []byte, kind byte, n int) []byte {
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint16(b, uint16(n))
	return binary.LittleEndian.AppendUint16(b, ^uint16(n))
}

// AppendStored appends stored blocks with the bytes of p.
func AppendStored(b, p []byte) []byte {
	for len(p) > 0 {
		n := min(len(p), MaxStored)
		b = append(AppendStoredHeader(b, n), p[:n]...)
		p = p[n:]
	}
	return b
}

// StoredParts returns the parts of stored blocks with the bytes of p, and Flush. p is not
// copied: it may be an event of many megabytes that is shared.
func StoredParts(p []byte) (parts [][]byte) {
	for len(p) > 0 {
		n := min(len(p), MaxStored)
		parts = append(parts, AppendStoredHeader(nil, n), p[:n])
		p = p[n:]
	}
	if len(parts) > 0 {
		parts = append(parts, []byte(Flush))
	}
	return parts
}

// StoredSize is how many bytes the parts have for n bytes, more than none.
func StoredSize(n int) int {
	blocks := (n + MaxStored - 1) / MaxStored
	return n + blocks*headerSize + len(Flush)
}

// appendEnd ends a member that has the sum s.
func appendEnd(b []byte, s Sum) []byte {
	b = appendBlockHeader(b, lastStoredBlock, 0)
	b = binary.LittleEndian.AppendUint32(b, s.crc)
	return binary.LittleEndian.AppendUint32(b, uint32(s.n)) //nolint:gosec // ISIZE is the length modulo 2^32
}
