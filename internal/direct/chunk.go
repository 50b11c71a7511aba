package direct

import "strconv"

// lastChunk ends a body, without trailers.
const lastChunk = "0\r\n\r\n"

// largeFrame is how many bytes of data are sent without being copied into a frame: a
// large event, of which each socket that is behind would hold a copy.
const largeFrame = 64 << 10

// chunkAround returns what comes before and behind the data p in a chunk.
func chunkAround(p []byte) (before, behind []byte) {
	return append(strconv.AppendUint(nil, uint64(len(p)), 16), '\r', '\n'), []byte("\r\n")
}

// appendChunk appends a chunk with the data p (RFC 9112, section 7.1).
func appendChunk(b, p []byte) []byte {
	b = strconv.AppendUint(b, uint64(len(p)), 16)
	b = append(b, '\r', '\n')
	b = append(b, p...)
	return append(b, '\r', '\n')
}
