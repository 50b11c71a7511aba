// Package oracle holds no code, only a test: it runs configurations through a real
// Caddy twice, with the line sse_fanout and without it, and compares what each
// client gets. Without the line, Caddy is the oracle: with the line, no client may
// get a byte that it would not have got, nor lose one, but for heartbeats,
// comments, reconnection times and positions. Over a reload, a client may get what
// its own request gets through either configuration, and nothing else.
//
// The test speaks Caddyfile and HTTP only and knows nothing of how sharing works.
//
//	case       a Caddyfile in which SHARE stands for the line: written by hand
//	           (cases_*_test.go, reload_test.go, tls_test.go), or composed of
//	           fragments (fragments_test.go, generate_test.go)
//	identity   a client: its address, headers, cookies, protocol (identity_test.go)
//	origins    the applications behind the sites: every event says what the origin
//	           has seen of the request that it answers (origin_test.go)
//	run        one variant of a case: its origins, its ports, the clients that
//	           connect and leave by a script (run_test.go, script_test.go)
//	judge      compares the two runs of a case (judge_test.go)
//
// One load of Caddy holds the servers of many runs (caddy_test.go).
//
// What a handler behind the line makes of placeholders of the client, such as
// "header_up X-User {http.request.remote.host}", is the operator's business and left
// out, and so are headers that say nothing about who may see a stream.
//
// A case that fails is found by its name, more cases by their number and seed:
//
//	go test ./oracle -only 'fault 1'
//	go test ./oracle -run Generated -configs 5000 -seed 7 -v
//	go test ./oracle -only 'fault 1' -log                  # shows Caddy's log
//	go test ./oracle -line ''                              # compares Caddy with itself
package oracle
