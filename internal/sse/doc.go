// Package sse turns bytes into events and back by WHATWG HTML, "Server-sent
// events" (https://html.spec.whatwg.org/multipage/server-sent-events.html). It
// knows no HTTP and no Caddy.
//
// [Decoder] takes the bytes of an event stream in any chunking and hands out
// the blocks in it that mean something. [Append] writes such a block in wire
// form, and [AppendComment] a comment. Whatever a Decoder has emitted, Append
// writes so that a Decoder reads the same again.
//
// The unit is the block, not the dispatched event: what has no data is not
// dispatched to a page, but its id and its reconnection time count all the
// same, so it is emitted as well.
package sse
