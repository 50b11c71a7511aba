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
