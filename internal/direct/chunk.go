package direct

import "strconv"

// lastChunk ends a body, without trailers.
const lastChunk = "0\r\n\r\n"

// appendChunk appends a chunk with the data p (RFC 9112, section 7.1).
func appendChunk(b, p []byte) []byte {
	b = strconv.AppendUint(b, uint64(len(p)), 16)
	b = append(b, '\r', '\n')
	b = append(b, p...)
	return append(b, '\r', '\n')
}
