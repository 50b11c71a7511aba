package oracle

// sites are what shares plainly, what was seen to leak, and what puts several sites,
// blocks, listeners and named routes beside each other. What can lead a request
// elsewhere in front of the line and behind it is in files of its own. All are in
// their smallest form; pairs are generated.
var sites = []*testcase{
	{
		name:   "fault 1: the shared request leaves its block",
		traits: []string{"address"},
		config: site(`
	@external not remote_ip 127.0.0.2
	handle @external {
		SHARE
		reverse_proxy /public/* PUBLIC
	}
	handle {
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:   "fault 1: both blocks share",
		traits: []string{"address"},
		config: site(`
	@external not remote_ip 127.0.0.2
	handle @external {
		SHARE
		reverse_proxy /public/* PUBLIC
	}
	handle {
		SHARE
		reverse_proxy PRIVATE
	}`),
	},
	{
		name:   "fault 2: a handler reached at two places",
		traits: []string{"address"},
		config: `&(share) {
	SHARE
}
` + site(`
	@internal remote_ip 127.0.0.2
	handle @internal {
		invoke share
		reverse_proxy PRIVATE
	}
	handle {
		invoke share
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:   "bare",
		shares: true,
		traits: []string{"address", "forwarded", "cookie", "authorization", "role", "language", "agent", "referer", "protocol", "method", "accept", "query", "host", "path"},
		config: site(`
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "handle by path",
		shares: true,
		traits: []string{"path", "cookie"},
		config: site(`
	handle /inside/* {
		SHARE
		reverse_proxy PRIVATE
	}
	handle {
		SHARE
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:   "handle_path, rewritten",
		shares: true,
		traits: []string{"path", "query"},
		config: site(`
	handle_path /inside/* {
		rewrite * /deep{uri}
		SHARE
		reverse_proxy PRIVATE
	}
	handle {
		uri replace events stream
		SHARE
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:   "route by path",
		shares: true,
		traits: []string{"path"},
		config: site(`
	route /inside/* {
		SHARE
		reverse_proxy PRIVATE
	}
	route {
		SHARE
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:   "host in one site",
		shares: true,
		traits: []string{"host"},
		config: site(`
	@inside host inside.test
	handle @inside {
		SHARE
		reverse_proxy PRIVATE
	}
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "a block, and what others get",
		shares: true,
		traits: []string{"address", "path"},
		config: site(`
	handle /events* {
		SHARE
		reverse_proxy PUBLIC
	}
	@inside remote_ip 127.0.0.2
	respond @inside 403
	redir /old /new
	reverse_proxy PRIVATE`),
	},
	{
		name:   "several sites on one server",
		shares: true,
		traits: []string{"host", "cookie"},
		config: `http://inside.test:PORT {
	SHARE
	reverse_proxy PRIVATE
}
http://site.test:PORT {
	SHARE
	reverse_proxy PUBLIC
}
`,
	},
	{
		name:    "several listeners",
		shares:  true,
		clients: []identity{with("at the second port", func(id *identity) { id.secondPort = true })},
		config: `http://:PORT {
	SHARE
	reverse_proxy PUBLIC
}
http://:PORT2 {
	SHARE
	reverse_proxy PRIVATE
}
`,
	},
	{
		name:   "static directives in front",
		shares: true,
		traits: []string{"path", "language"},
		config: site(`
	root ROOT
	encode
	header X-Site-Answer yes
	log {
		output discard
	}
	vars tier gold
	@inside path /inside/*
	vars @inside tier platinum
	map {path} {where} {
		~^/inside/ deep
		default    shallow
	}
	try_files {path} /events
	SHARE
	reverse_proxy PUBLIC {
		header_up X-Site-Tier {vars.tier}
		header_up X-Site-Where {where}
	}`),
	},
	{
		name:   "named route with its origin, invoked twice",
		traits: []string{"cookie", "address"},
		config: `&(app) {
	route { # without it, Caddy would take the first of two directives for the whole
		SHARE
		reverse_proxy PUBLIC {
			header_up X-Site-Tier {vars.tier}
		}
	}
}
` + site(`
	@inside remote_ip 127.0.0.2
	handle @inside {
		vars tier gold
		invoke app
	}
	handle {
		vars tier silver
		invoke app
	}`),
	},
	{
		name:   "several sites, one named route",
		traits: []string{"host", "address"},
		config: `&(share) {
	SHARE
}
http://site.test:PORT {
	@inside remote_ip 127.0.0.2
	handle @inside {
		invoke share
		reverse_proxy PRIVATE
	}
	handle {
		invoke share
		reverse_proxy PUBLIC
	}
}
http://inside.test:PORT {
	invoke share
	reverse_proxy PRIVATE
}
`,
	},
	{
		name:   "php_fastcgi",
		shares: true,
		traits: []string{"path", "cookie"},
		clients: []identity{
			with("of the script itself", func(id *identity) { id.path = "/events.php" }),
		},
		config: site(`
	root ROOT
	SHARE
	php_fastcgi PHP`),
	},
	{
		name:    "trusted proxy that ends TLS",
		clients: []identity{proxied},
		config: site(`
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "a site with access control beside one without",
		traits: []string{"host", "address"},
		clients: []identity{
			with("in capitals", func(id *identity) { id.host = "SITE.TEST" }),
			with("of the private site, from an insider's address", func(id *identity) { id.host, id.from = "inside.test", "127.0.0.2" }),
			with("of a host that no site has", func(id *identity) { id.host = "elsewhere.example" }),
		},
		config: `http://site.test:PORT {
	SHARE
	reverse_proxy PUBLIC
}
http://*.test:PORT {
	@outside not remote_ip 127.0.0.2
	respond @outside 403
	SHARE
	reverse_proxy PRIVATE
}
`,
	},
}
