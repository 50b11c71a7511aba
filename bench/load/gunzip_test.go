package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"testing"
)

// Events that come in gzip, cut anywhere, are counted like others.
func TestReaderOfGzip(t *testing.T) {
	var sent bytes.Buffer
	z := gzip.NewWriter(&sent)
	const events = 100
	for n := uint64(1); n <= events; n++ {
		event := appendObjects(nil, n, 1_700_000_000_000_000_000, 300)
		if len(event) != 300 {
			t.Fatalf("an event of %d bytes", len(event))
		}
		_, _ = z.Write(event)
		_ = z.Flush()
	}
	head := "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
	for _, cut := range []int{1, 7, 100, sent.Len()} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			r, s := &reader{}, &stream{}
			r.feed(s, []byte(head), 0)
			for p := sent.Bytes(); len(p) > 0; p = p[min(cut, len(p)):] {
				r.feed(s, p[:min(cut, len(p))], 0)
			}
			if r.events != events || r.missing != 0 || s.lastN != events {
				t.Errorf("%d events, %d missing, the newest is %d", r.events, r.missing, s.lastN)
			}
			r.restart(s)
			if s.gunzip != 0 || len(r.idle) != 1 {
				t.Error("the decoder is kept")
			}
		})
	}
}
