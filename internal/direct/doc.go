// Package direct delivers streams to sockets without a goroutine, a stack or a
// buffer for each. It takes over connections whose response header has been sent,
// and writes chunks of HTTP/1.1 (RFC 9112, section 7.1) to them.
//
//	              ┌─ crowd: the sockets of one stream that have all of it so far
//	log ──▶ shard ┤
//	              └─ sockets that are behind, each with a cursor of its own
//
// A Writer has a few shards. Each owns its sockets: one goroutine writes to them
// and never blocks, another waits for the kernel's word that a client has hung up,
// or that a socket has room again. Clients that have everything so far need no
// state of their own for an event: it is framed once, and the frame is sent to one
// file descriptor after the other. One whose socket takes only a part of it leaves
// the crowd, is served by itself at its own pace, and comes back when it has caught
// up. Nobody waits for it.
//
// A client that reads several logs gets bytes that nobody else gets. It is a Solo, and is
// in no group: a Source says what it is sent. Each log wakes a shard once for all of these,
// by its tap.
//
// It knows logs and sockets: no stream format, no requests, no Caddy.
package direct
