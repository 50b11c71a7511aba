package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Conn is a client's connection with one goroutine for all its streams. Of
// the protocol it does what a server needs in order to go on. Each stream can
// receive 2 GiB.
type http2Conn struct {
	framer *http2.Framer // reads: one goroutine; writes: under mu

	mu     sync.Mutex
	fields bytes.Buffer
	coder  *hpack.Encoder

	owed uint32 // bytes received that the window of the connection lacks
}

const (
	widest = 1<<31 - 1 // RFC 9113, section 6.9.1
	narrow = 1<<16 - 1 // what the window of a connection is at first
)

func startHTTP2(conn net.Conn) (*http2Conn, error) {
	c := &http2Conn{framer: http2.NewFramer(conn, bufio.NewReaderSize(conn, 64<<10))}
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.coder = hpack.NewEncoder(&c.fields)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: widest}); err != nil {
		return nil, err
	}
	return c, c.framer.WriteWindowUpdate(0, widest-narrow)
}

// request opens a stream.
func (c *http2Conn) request(id uint32, p *plan, target *url.URL) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fields.Reset()
	scheme := map[bool]string{true: "https", false: "http"}[p.tls]
	host, fields := p.fields()
	for _, f := range append([][2]string{{":method", "GET"}, {":scheme", scheme}, {":authority", host}, {":path", target.RequestURI()}}, fields...) {
		if err := c.coder.WriteField(hpack.HeaderField{Name: strings.ToLower(f[0]), Value: f[1]}); err != nil {
			return err
		}
	}
	return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.fields.Bytes(), EndStream: true, EndHeaders: true})
}

// consumed gives the window of the connection back what was taken of it.
func (c *http2Conn) consumed(n uint32) error {
	if c.owed += n; c.owed < 1<<20 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, c.owed = c.owed, 0
	return c.framer.WriteWindowUpdate(0, n)
}

// openHTTP2 opens one connection for these clients of a lane.
func (c *connCrowd) openHTTP2(ctx context.Context, l *lane, streams []stream, first int, began time.Time) {
	if !c.plan.awaitTurn(ctx, first, began) {
		return
	}
	lost := func(err error) {
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := range streams {
			if streams[i].framing != ended {
				l.ends(&streams[i], err)
			}
		}
	}
	conn, err := c.dial(ctx, first, http2.NextProtoTLS)
	var h *http2Conn
	if err == nil {
		h, err = startHTTP2(conn)
	}
	if err != nil {
		lost(err)
		return
	}
	c.done.Go(func() {
		lost(h.read(l, streams))
		conn.Close()
	})
	for i := range streams {
		if !c.plan.awaitTurn(ctx, first+i, began) || h.request(uint32(2*i+1), c.plan, c.plan.target(first+i)) != nil {
			return // and the reader hears why
		}
	}
}

// read takes what the server sends until the connection ends.
func (c *http2Conn) read(l *lane, streams []stream) error {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.mu.Lock()
				err = c.framer.WriteSettingsAck()
				c.mu.Unlock()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.mu.Lock()
				err = c.framer.WritePing(true, f.Data)
				c.mu.Unlock()
			}
		case *http2.MetaHeadersFrame:
			l.answersStream(&streams[f.StreamID/2], f)
		case *http2.DataFrame:
			s := &streams[f.StreamID/2]
			l.mu.Lock()
			if s.framing == inIdentity {
				l.healthy.feed(s, f.Data(), time.Now().UnixNano())
				if f.StreamEnded() {
					l.endsStream(s, "response ended by the server")
				}
			}
			l.mu.Unlock()
			err = c.consumed(f.Length)
		case *http2.RSTStreamFrame:
			l.mu.Lock()
			l.endsStream(&streams[f.StreamID/2], "stream reset by the server: "+f.ErrCode.String())
			l.mu.Unlock()
		}
		if err != nil {
			return err
		}
	}
}

// answersStream takes the head of a response, or its end.
func (l *lane) answersStream(s *stream, f *http2.MetaHeadersFrame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.status == 0 {
		status, _ := strconv.ParseInt(f.PseudoValue("status"), 10, 16)
		s.status, s.framing = int16(status), inIdentity
		if status != 200 {
			l.healthy.non200++
			l.endsStream(s, fmt.Sprintf("status %d", status))
			return
		}
		l.succeed()
	}
	if f.StreamEnded() {
		l.endsStream(s, "response ended by the server")
	}
}

// endsStream notes that a stream is over. l.mu must be held.
func (l *lane) endsStream(s *stream, why string) {
	if s.framing != ended {
		s.framing = ended
		l.ends(s, errors.New(why))
	}
}
