// Package conns looks after the connections of servers that have no request. On exit, Caddy would
// wait for them.
package conns

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
	"weak"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/carrier"
)

// connGrace is how long a connection may stay quiet once Caddy exits. What its
// client has to read has been written by then.
const connGrace = 500 * time.Millisecond

// quietConns are the connections that have brought no request yet, and those of
// HTTP/2 without one now, of all servers that have a handler of ours. On exit,
// Caddy waits for them: for the former five seconds, and for the latter until
// their clients close them, if they were made just when their server was shut
// down by a reload or the exit itself. Then nobody has told them to end.
var quietConns struct {
	mu sync.Mutex

	// Guarded by mu.
	all map[net.Conn]struct{}
}

// watched holds the servers with an sse_fanout handler. A server calls each of its hooks for
// every connection and every request: it has them once, however many handlers it has.
var watched struct {
	mu      sync.Mutex
	servers map[weak.Pointer[caddyhttp.Server]]struct{}
}

// Watch lets a server tell of its connections and its end, and calls shutdown when it is shut
// down.
func Watch(server *caddyhttp.Server, shutdown func()) {
	watched.mu.Lock()
	defer watched.mu.Unlock()
	key := weak.Make(server)
	if _, known := watched.servers[key]; known {
		return
	}
	for old := range watched.servers {
		if old.Value() == nil {
			delete(watched.servers, old)
		}
	}
	if watched.servers == nil {
		watched.servers = make(map[weak.Pointer[caddyhttp.Server]]struct{})
	}
	watched.servers[key] = struct{}{}
	server.RegisterOnShutdown(shutdown)
	server.RegisterOnShutdown(closeQuietIfExiting)
	server.RegisterConnContext(carrier.WithConn)
	server.RegisterConnState(noteConn)
}

// noteConn keeps which connections are quiet.
func noteConn(c net.Conn, state http.ConnState) {
	secure, ok := c.(*tls.Conn)
	if _, plain := c.(*net.TCPConn); !ok && !plain {
		return // what a listener wrapper has made may not be comparable
	}
	if state == http.StateIdle && (!ok || secure.ConnectionState().NegotiatedProtocol != "h2") {
		return // it was active before, and net/http closes it itself
	}
	quietConns.mu.Lock()
	defer quietConns.mu.Unlock()
	if state != http.StateNew && state != http.StateIdle {
		delete(quietConns.all, c)
		return
	}
	if quietConns.all == nil {
		quietConns.all = make(map[net.Conn]struct{})
	}
	quietConns.all[c] = struct{}{}
	if caddy.Exiting() {
		time.AfterFunc(connGrace, func() { closeIfQuiet(c) })
	}
}

// closeQuietIfExiting runs when a server shuts down.
func closeQuietIfExiting() {
	if !caddy.Exiting() {
		return
	}
	quietConns.mu.Lock()
	defer quietConns.mu.Unlock()
	some := make([]net.Conn, 0, len(quietConns.all))
	for c := range quietConns.all {
		some = append(some, c)
	}
	time.AfterFunc(connGrace, func() { closeIfQuiet(some...) })
}

// closeIfQuiet closes those of some that have no request.
func closeIfQuiet(some ...net.Conn) {
	quietConns.mu.Lock()
	var quiet []net.Conn
	for _, c := range some {
		if _, ok := quietConns.all[c]; ok {
			quiet = append(quiet, c)
		}
	}
	quietConns.mu.Unlock()
	for _, c := range quiet {
		_ = c.Close()
	}
}
