package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

func TestConnCrowds(t *testing.T) {
	const clients, events = 110, 100 // of 1,200 bytes: more lanes than one, and more than the first window of a connection
	for _, p := range []plan{{tls: true}, {tls: true, h2: true}, {h2: true}, {tls: true, h3: true}} {
		t.Run(fmt.Sprintf("tls=%v,h2=%v,h3=%v", p.tls, p.h2, p.h3), func(t *testing.T) {
			finish, major := make(chan struct{}), 1
			if p.h2 {
				major = 2
			} else if p.h3 {
				major = 3
			}
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != major || r.Header.Get("Accept") != "text/event-stream" || r.Header.Get("X-A") != "b" || r.Host != "example.com" {
					t.Errorf("asked for %s %s of %s with %v", r.Proto, r.URL, r.Host, r.Header)
				}
				if strings.HasSuffix(r.URL.Path, "/0") {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				for n := range uint64(events) {
					w.Write(appendEvent(nil, n+1, time.Now().UnixNano(), 1200, true))
				}
				w.(http.Flusher).Flush()
				<-finish
				if strings.HasSuffix(r.URL.Path, "/1") {
					panic(http.ErrAbortHandler)
				}
			}))
			server.EnableHTTP2 = p.tls
			if p.tls {
				server.StartTLS()
			} else {
				server.Config.Protocols = new(http.Protocols)
				server.Config.Protocols.SetUnencryptedHTTP2(true)
				server.Start()
			}
			defer server.Close()
			address := server.URL
			if p.h3 {
				address = serveHTTP3(t, server)
			}
			target, err := url.Parse(address + "/events")
			if err != nil {
				t.Fatal(err)
			}
			p.url, p.n, p.topics, p.streams, p.ramp, p.sources, p.connectOver = target, clients, clients, 10, 1e6, 2, 10*time.Second
			p.header = [][2]string{{"X-A", "b"}, {"Host", "example.com"}}
			c, err := startConnCrowd(&p)
			if err != nil {
				t.Fatal(err)
			}
			defer c.stop()
			eventually(t, c, func(sum tally, g progress) bool {
				return sum.events == (clients-1)*events && g.failed == 1
			})
			sum, g, _ := totals(c)
			if g.connected != clients-1 || g.disconnects != 0 || g.firstError != "status 503" ||
				sum.gaps+sum.duplicates+sum.blocks != 0 || sum.non200 != 1 || highest(c.newestN()) != events {
				t.Errorf("%+v %+v", sum, g)
			}
			close(finish)
			eventually(t, c, func(_ tally, g progress) bool { return g.disconnects == clients-1 && g.failed == 1 })
		})
	}
}

// serveHTTP3 serves what server does, with its certificate, and returns where.
func serveHTTP3(t *testing.T, server *httptest.Server) string {
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h3 := &http3.Server{Handler: server.Config.Handler, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: server.TLS.Certificates})}
	go h3.Serve(socket)
	t.Cleanup(func() {
		h3.Close()
		socket.Close()
	})
	return "https://" + socket.LocalAddr().String()
}
