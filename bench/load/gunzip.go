package main

import (
	"bytes"
	"compress/gzip"
	"io"
)

// gunzips are the decoders of streams in gzip.
type gunzips struct {
	all  []*gunzip
	idle []int32 // places in all
}

// A gunzip decodes what it is fed, as far as that goes. Go's decoder pulls, so it has a
// goroutine, which runs only while its feeder waits.
type gunzip struct {
	feed   chan []byte
	hungry chan struct{} // all that it was fed is decoded
	input  []byte
	output bytes.Buffer
}

func (g *gunzips) startGunzip(s *stream) {
	z := &gunzip{feed: make(chan []byte), hungry: make(chan struct{})}
	go z.run()
	<-z.hungry
	if n := len(g.idle); n > 0 {
		s.gunzip, g.idle = g.idle[n-1]+1, g.idle[:n-1]
		g.all[s.gunzip-1] = z
		return
	}
	g.all = append(g.all, z)
	s.gunzip = int32(len(g.all))
}

func (g *gunzips) stopGunzip(s *stream) {
	if s.gunzip == 0 {
		return
	}
	close(g.all[s.gunzip-1].feed)
	g.all[s.gunzip-1] = nil
	g.idle = append(g.idle, s.gunzip-1)
	s.gunzip = 0
}

// decode returns what p says, valid until the next call for s.
func (g *gunzips) decode(s *stream, p []byte) []byte {
	z := g.all[s.gunzip-1]
	z.output.Reset()
	z.feed <- p
	<-z.hungry
	return z.output.Bytes()
}

// run decodes until the feed is closed. What is no gzip decodes to nothing, so that its events
// are missed.
func (z *gunzip) run() {
	if r, err := gzip.NewReader(z); err == nil {
		_, _ = io.Copy(struct{ io.Writer }{&z.output}, r) // not by ReadFrom, as decode resets it
	}
	for {
		if _, err := z.Read(nil); err != nil {
			return
		}
		z.input = nil
	}
}

// Read implements io.Reader, for the decoder.
func (z *gunzip) Read(p []byte) (int, error) {
	if len(z.input) == 0 {
		z.hungry <- struct{}{}
		var ok bool
		if z.input, ok = <-z.feed; !ok {
			return 0, io.EOF
		}
	}
	n := copy(p, z.input)
	z.input = z.input[n:]
	return n, nil
}
