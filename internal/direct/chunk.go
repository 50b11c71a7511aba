package direct

import "strconv"

// lastChunk ends a body, without trailers.
const lastChunk = "0\r\n\r\n"

// chunkEnd comes behind the data of a chunk.
const chunkEnd = "\r\n"

// largeFrame is how many bytes of data are sent without being copied into a frame: a
// large event, of which each socket that is behind would hold a copy.
const largeFrame = 64 << 10

// appendChunkSize appends what comes before the n bytes of data in a chunk (RFC 9112,
// section 7.1).
func appendChunkSize(b []byte, n int) []byte {
	return append(strconv.AppendUint(b, uint64(n), 16), '\r', '\n')
}

// appendChunk appends a chunk with the data p.
func appendChunk(b, p []byte) []byte {
	return append(append(appendChunkSize(b, len(p)), p...), chunkEnd...)
}

// chunkHead is the room that is left in front of the data of a chunk for its size.
const chunkHead = 10

// setChunkHead makes of a head and the data behind it the begin of a chunk, to whose data
// so many more bytes belong. It returns it without the room that is left over.
func setChunkHead(b []byte, more int) []byte {
	var room [chunkHead + 8]byte
	head := append(strconv.AppendUint(room[:0], uint64(len(b)-chunkHead+more), 16), '\r', '\n')
	from := chunkHead - len(head)
	copy(b[from:], head)
	return b[from:]
}
