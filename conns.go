package ssefanout

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// newConnGrace is how long a connection may take to bring its first request once
// Caddy exits. Net/http gives it five seconds, and Caddy waits for that.
const newConnGrace = time.Second

// newConns are the connections that have brought no request yet, of the servers
// that have a handler of ours. Nobody else could make Caddy wait for a client
// that stops in the middle of a handshake: it is no subscriber.
var newConns struct {
	mu sync.Mutex

	// Guarded by mu.
	all map[net.Conn]struct{}
}

// noteConn takes note of a connection's state.
func noteConn(c net.Conn, state http.ConnState) {
	switch c.(type) {
	case *tls.Conn, *net.TCPConn:
	default:
		return // what a listener wrapper has made may not be comparable
	}
	if state == http.StateIdle {
		return // it was active before
	}
	newConns.mu.Lock()
	defer newConns.mu.Unlock()
	if state != http.StateNew {
		delete(newConns.all, c)
		return
	}
	if newConns.all == nil {
		newConns.all = make(map[net.Conn]struct{})
	}
	newConns.all[c] = struct{}{}
	if caddy.Exiting() {
		time.AfterFunc(newConnGrace, func() { closeNewConns(c) })
	}
}

// closeNewConnsIfExiting runs when a server shuts down.
func closeNewConnsIfExiting() {
	if !caddy.Exiting() {
		return
	}
	newConns.mu.Lock()
	defer newConns.mu.Unlock()
	some := make([]net.Conn, 0, len(newConns.all))
	for c := range newConns.all {
		some = append(some, c)
	}
	time.AfterFunc(newConnGrace, func() { closeNewConns(some...) })
}

// closeNewConns closes those of some that have still brought no request.
func closeNewConns(some ...net.Conn) {
	newConns.mu.Lock()
	var late []net.Conn
	for _, c := range some {
		if _, ok := newConns.all[c]; ok {
			late = append(late, c)
		}
	}
	newConns.mu.Unlock()
	for _, c := range late {
		_ = c.Close()
	}
}
