// Command caddy is standard Caddy with the sse_fanout module built in, and
// with a demo that shows what it is for:
//
//	go run ./cmd/caddy run --config Caddyfile.example
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sse-fanout/caddy-sse-fanout"
	_ "github.com/sse-fanout/caddy-sse-fanout/internal/demo"
	_ "github.com/sse-fanout/caddy-sse-fanout/jetstream"
)

func main() {
	caddycmd.Main()
}
