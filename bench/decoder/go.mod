module github.com/sse-fanout/caddy-sse-fanout/bench/decoder

go 1.26.0

require (
	github.com/launchdarkly/eventsource v1.11.0
	github.com/sse-fanout/caddy-sse-fanout v0.0.0
	github.com/tmaxmax/go-sse v0.11.0
)

replace github.com/sse-fanout/caddy-sse-fanout => ../..
