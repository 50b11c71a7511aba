module github.com/sse-fanout/caddy-sse-fanout/bench/load

go 1.26.0
