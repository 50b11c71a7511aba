// Package oracle holds no code, only a test: it runs configurations through a real
// Caddy twice, with the line sse_fanout and without it, and compares what each
// client gets. Without the line, Caddy is the oracle: with the line, no client may
// get a byte that it would not have got, nor lose one, but for heartbeats,
// comments, reconnection times and positions.
//
// The test speaks Caddyfile and HTTP only and knows nothing of how sharing works.
//
//	case       a Caddyfile in which SHARE stands for the line (cases_test.go), or
//	           one that is composed of fragments (fragments_test.go, generate_test.go)
//	identity   a client: its address, headers, cookies, protocol (identity_test.go)
//	origins    what the configuration leads to (origin_test.go): every event says what
//	           the request looked like that the origin is answering
//	run        one variant of a case: its origins, its ports, the clients that
//	           connect and leave by a script (run_test.go, script_test.go)
//	judge      compares the two runs of a case (judge_test.go)
//
// One load of Caddy holds the servers of many runs (caddy_test.go).
//
// Flags, after -args: -only <regexp> picks cases by name, -configs <n> and -seed <n>
// say how many are generated, and from which seed, -log shows Caddy's log.
package oracle
