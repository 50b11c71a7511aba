package sse

import "bytes"

// lineEnds finds the line ends in one slice: CR and LF, of which CRLF is both
// in turn. The next CR and the next LF are looked up apart, each with the
// memory-speed search for one byte, and remembered until passed: a search for
// the one that is rare would otherwise cross the same bytes at every line.
type lineEnds struct {
	cr, lf int // the first of its kind at or after where it was searched from
}

func newLineEnds() lineEnds { return lineEnds{cr: -1, lf: -1} }

// next returns the index of the first CR or LF in p[from:], or len(p) if there
// is none. From one call to the next, p is the same and from does not fall.
func (e *lineEnds) next(p []byte, from int) int {
	if e.lf < from {
		e.lf = indexFrom(p, from, '\n')
	}
	if e.cr < from {
		e.cr = indexFrom(p, from, '\r')
	}
	return min(e.cr, e.lf)
}

func indexFrom(p []byte, from int, c byte) int {
	if i := bytes.IndexByte(p[from:], c); i >= 0 {
		return from + i
	}
	return len(p)
}
