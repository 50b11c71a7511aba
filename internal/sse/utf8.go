package sse

import "unicode/utf8"

// appendValid appends text to dst with each ill-formed sequence replaced by
// U+FFFD, as the UTF-8 decoder of the WHATWG Encoding standard does. It stops
// once dst is longer than limit, so that a replacement, which can make three
// bytes of one, never costs much more than the limit allows.
//
// Neither bytes.ToValidUTF8 (one U+FFFD for a run of sequences) nor a range over
// a string (one for each byte) follows that rule.
func appendValid(dst, text []byte, limit int) []byte {
	for len(text) > 0 && len(dst) <= limit {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			size = maximalSubpart(text)
		}
		dst = utf8.AppendRune(dst, r)
		text = text[size:]
	}
	return dst
}

// maximalSubpart returns the length of the ill-formed sequence that text begins
// with: the longest beginning of a well-formed one, or else a single byte. See
// "UTF-8 decoder" in the Encoding standard, and Table 3-7 of Unicode.
func maximalSubpart(text []byte) int {
	lower, upper := byte(0x80), byte(0xBF)
	var needed int
	switch lead := text[0]; {
	case lead >= 0xC2 && lead <= 0xDF:
		needed = 1
	case lead >= 0xE0 && lead <= 0xEF:
		needed = 2
		switch lead {
		case 0xE0: // overlong below
			lower = 0xA0
		case 0xED: // surrogates above
			upper = 0x9F
		}
	case lead >= 0xF0 && lead <= 0xF4:
		needed = 3
		switch lead {
		case 0xF0: // overlong below
			lower = 0x90
		case 0xF4: // beyond U+10FFFF above
			upper = 0x8F
		}
	}
	n := 1
	for n < len(text) && n <= needed && text[n] >= lower && text[n] <= upper {
		lower, upper = 0x80, 0xBF
		n++
	}
	return n
}
