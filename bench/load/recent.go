package main

import "bytes"

// recent holds events seen lately, by N. All clients of a topic receive the same
// bytes, and to compare them costs a fraction of what reading them does. Nil keeps
// none.
type recent [4096]struct {
	n, t uint64
	raw  []byte
}

// keep stores event n, made at t. Large ones cost little to read for their size.
func (k *recent) keep(n, t uint64, raw []byte) {
	const large = 4 << 10
	if k != nil && len(raw) <= large {
		e := &k[n%uint64(len(k))]
		e.n, e.t, e.raw = n, t, append(e.raw[:0], raw...)
	}
}

// begins says when event n was made and how long it is, if p begins with it.
func (k *recent) begins(p []byte, n uint64) (t uint64, size int, ok bool) {
	if k == nil {
		return 0, 0, false
	}
	e := &k[n%uint64(len(k))]
	ok = e.n == n && bytes.HasPrefix(p, e.raw)
	return e.t, len(e.raw), ok
}
