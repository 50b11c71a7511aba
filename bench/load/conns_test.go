package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestConnCrowds(t *testing.T) {
	const clients, events = 25, 3000 // of 1,200 bytes: more than the first window of a stream, and of a connection
	for _, p := range []plan{{tls: true}, {tls: true, h2: true}, {h2: true}} {
		t.Run(fmt.Sprintf("tls=%v,h2=%v", p.tls, p.h2), func(t *testing.T) {
			finish := make(chan struct{})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor == 2 != p.h2 || r.Header.Get("Accept") != "text/event-stream" || r.Header.Get("X-A") != "b" || r.Host != "example.com" {
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
			target, err := url.Parse(server.URL + "/events")
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
