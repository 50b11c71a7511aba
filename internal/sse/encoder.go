package sse

import (
	"bytes"
	"strconv"
)

// Append appends the wire form of e to dst, with the blank line that ends the
// block and LF line ends: id, event, retry, data. What would break the framing
// is kept out of it: CR, LF and CRLF in the data begin another data line, CR and
// LF are dropped from id and type, and NUL from an id, which would be ignored
// for it. A retry is in whole milliseconds, and never negative.
//
// A space is always written after the colon, because a decoder takes one away:
// a value that begins with one keeps it.
func Append(dst []byte, e *Event) []byte {
	if e.HasID {
		dst = appendWithout(append(dst, "id: "...), e.ID, "\r\n\x00")
		dst = append(dst, '\n')
	}
	if len(e.Type) > 0 {
		dst = appendWithout(append(dst, "event: "...), e.Type, "\r\n")
		dst = append(dst, '\n')
	}
	if e.HasRetry {
		dst = append(dst, "retry: "...)
		dst = strconv.AppendInt(dst, max(0, e.Retry.Milliseconds()), 10)
		dst = append(dst, '\n')
	}
	if e.HasData {
		dst = appendLines(dst, "data: ", e.Data)
	}
	return append(dst, '\n')
}

// AppendComment appends text to dst as a comment, each of its lines (ended by
// CR, LF or CRLF) as one of its own: ": text\n". Empty text gives ":\n". There
// is no blank line after it, so a comment can also stand within a block.
func AppendComment(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, ":\n"...)
	}
	return appendLines(dst, ": ", []byte(text))
}

func appendLines(dst []byte, prefix string, text []byte) []byte {
	ends := newLineEnds()
	for i := 0; ; {
		end := ends.next(text, i)
		dst = append(dst, prefix...)
		dst = append(dst, text[i:end]...)
		dst = append(dst, '\n')
		if end == len(text) {
			return dst
		}
		i = end + 1
		if text[end] == '\r' && i < len(text) && text[i] == '\n' {
			i++
		}
	}
}

func appendWithout(dst, value []byte, dropped string) []byte {
	for {
		i := bytes.IndexAny(value, dropped)
		if i < 0 {
			return append(dst, value...)
		}
		dst = append(dst, value[:i]...)
		value = value[i+1:]
	}
}
