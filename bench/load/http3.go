package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// openHTTP3 opens one connection for these clients of a lane.
func (c *connCrowd) openHTTP3(ctx context.Context, l *lane, streams []stream, first int, began time.Time) {
	if !c.plan.awaitTurn(ctx, first, began) {
		return
	}
	conn, err := quic.DialAddr(ctx, c.plan.url.Host,
		&tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{http3.NextProtoH3}},
		&quic.Config{HandshakeIdleTimeout: c.plan.connectOver, KeepAlivePeriod: 15 * time.Second})
	if err != nil {
		for i := range streams {
			l.lost(ctx, &streams[i], err)
		}
		return
	}
	defer conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	// A load tool does not ask for compression on its own.
	asker := (&http3.Transport{DisableCompression: true}).NewClientConn(conn)
	var readers sync.WaitGroup
	defer readers.Wait()
	for i := range streams {
		if !c.plan.awaitTurn(ctx, first+i, began) {
			return
		}
		readers.Go(func() { l.lost(ctx, &streams[i], c.readHTTP3(ctx, asker, l, &streams[i], first+i)) })
	}
}

// readHTTP3 asks for client i, and takes what the server sends until the response ends.
func (c *connCrowd) readHTTP3(ctx context.Context, asker http.RoundTripper, l *lane, s *stream, i int) error {
	target := *c.plan.target(i)
	target.Scheme = "https"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	host, fields := c.plan.fields()
	request.Host = host
	for _, f := range fields {
		request.Header.Add(f[0], f[1])
	}
	response, err := asker.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	l.mu.Lock()
	s.status, s.framing = int16(response.StatusCode), inIdentity
	if s.status == http.StatusOK {
		l.succeed()
	} else {
		l.healthy.non200++
	}
	l.mu.Unlock()
	if s.status != http.StatusOK {
		return fmt.Errorf("status %d", s.status)
	}
	for buf := make([]byte, 16<<10); ; {
		n, err := response.Body.Read(buf)
		l.mu.Lock()
		l.healthy.feed(s, buf[:n], time.Now().UnixNano())
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
}
