package oracle

// table has what can lead a request elsewhere in a Caddyfile, each in its smallest
// form. Pairs are generated.
var table = []*testcase{
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
		name:    "one site, several listeners, told apart behind",
		clients: []identity{with("at the second port", func(id *identity) { id.secondPort = true })},
		config: `http://:PORT, http://:PORT2 {
	@second vars {http.request.local.port} PORT2
	route {
		SHARE
		reverse_proxy @second PRIVATE
		reverse_proxy PUBLIC
	}
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
		name:   "variable by address, used behind",
		traits: []string{"address"},
		config: site(`
	@inside remote_ip 127.0.0.2
	vars tier silver
	vars @inside tier gold
	SHARE
	reverse_proxy PUBLIC {
		header_up X-Site-Tier {vars.tier}
	}`),
	},
	{
		name:   "map of the language, used behind",
		traits: []string{"language"},
		config: site(`
	map {header.Accept-Language} {tongue} {
		eo      Esperanto
		default English
	}
	SHARE
	reverse_proxy PUBLIC {
		header_up X-Site-Tongue {tongue}
	}`),
	},
	{
		name:   "map of the address picks the matcher behind",
		traits: []string{"address"},
		config: site(`
	map {http.request.remote.host} {inside} {
		127.0.0.2 yes
		default   no
	}
	@inside vars {inside} yes
	SHARE
	reverse_proxy @inside PRIVATE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "rewrite by agent",
		traits: []string{"agent"},
		config: site(`
	@inside header User-Agent Inside/*
	rewrite @inside /private{uri}
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "uri by referer",
		traits: []string{"referer"},
		config: site(`
	@inside header Referer *inside*
	uri @inside replace events secrets
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "request_header by address",
		traits: []string{"address"},
		config: site(`
	@inside remote_ip 127.0.0.2
	request_header @inside X-Site-User insider
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "request_header to all",
		traits: []string{"address", "role"},
		config: site(`
	request_header X-Site-User somebody
	request_header -X-Role
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "basic_auth",
		traits: []string{"authorization"},
		config: site(`
	basic_auth {
		` + alice + `
	}
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "basic_auth, credentials removed",
		traits: []string{"authorization"},
		config: site(`
	basic_auth {
		` + alice + `
	}
	request_header -Authorization
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "basic_auth, user told to the origin",
		traits: []string{"authorization"},
		config: site(`
	route {
		@known header Authorization *
		basic_auth @known {
			` + alice + `
		}
		request_header @known X-Site-User {http.auth.user.id}
		request_header -Authorization
		SHARE
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:   "forward_auth by address",
		traits: []string{"address"},
		config: site(`
	forward_auth AUTH {
		uri /check?by=address
	}
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "forward_auth tells who it is",
		traits: []string{"address", "forwarded"},
		config: site(`
	forward_auth AUTH {
		uri /who?by=address
		copy_headers X-Site-User
	}
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "forward_auth by language, which is removed",
		traits: []string{"language"},
		config: site(`
	forward_auth AUTH {
		uri /check?by=language
	}
	request_header -Accept-Language
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "respond to outsiders",
		traits: []string{"address"},
		config: site(`
	@outside not remote_ip 127.0.0.2
	respond @outside "go away" 403
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "respond to insiders",
		traits: []string{"address"},
		config: site(`
	@inside remote_ip 127.0.0.2
	respond @inside "no stream for you"
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "method of outsiders",
		traits: []string{"language"},
		config: site(`
	@outside not header Accept-Language eo
	method @outside POST
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "error for outsiders",
		traits: []string{"forwarded"},
		config: site(`
	@outside not client_ip 10.0.0.0/8
	error @outside "go away" 404
	SHARE
	reverse_proxy PUBLIC
	handle_errors {
		respond "sorry: {err.status_code}"
	}`),
	},
	{
		name:   "error 503 for outsiders",
		traits: []string{"address"},
		config: site(`
	@outside not remote_ip 127.0.0.2
	error @outside 503
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "respond 429 to outsiders",
		traits: []string{"language"},
		config: site(`
	@outside not header Accept-Language eo
	respond @outside 429
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "abort for outsiders",
		traits: []string{"address"},
		config: site(`
	@outside not remote_ip 127.0.0.2
	abort @outside
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "redir for outsiders",
		traits: []string{"address"},
		config: site(`
	@outside not remote_ip 127.0.0.2
	redir @outside https://{host}/login
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "handle_errors with another origin",
		traits: []string{"address"},
		config: site(`
	@inside remote_ip 127.0.0.2
	error @inside 404
	SHARE
	reverse_proxy PUBLIC
	handle_errors {
		rewrite * /errors{uri}
		SHARE
		reverse_proxy PRIVATE
	}`),
	},
	{
		name:   "an expression that fails without a client",
		traits: []string{"address"},
		config: site(`
	@inside expression ` + "`size({http.request.remote.host}) > 0`" + `
	SHARE
	reverse_proxy @inside PRIVATE
	reverse_proxy PUBLIC`),
	},
	{
		name:    "intercept",
		traits:  []string{"address"},
		clients: []identity{with("of what is not there", func(id *identity) { id.path = "/missing" })},
		config: site(`
	@inside remote_ip 127.0.0.1
	intercept @inside {
		@missing status 404
		handle_response @missing {
			respond "intercepted" 418
		}
	}
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "header of the answer by address",
		traits: []string{"address"},
		config: site(`
	@inside remote_ip 127.0.0.2
	header @inside X-Site-Answer inside
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "reverse_proxy by address",
		traits: []string{"address"},
		config: site(`
	@inside remote_ip 127.0.0.2
	SHARE
	reverse_proxy @inside PRIVATE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "reverse_proxy by language",
		traits: []string{"language"},
		config: site(`
	@inside header Accept-Language eo*
	SHARE
	reverse_proxy @inside PRIVATE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "reverse_proxy by protocol",
		traits: []string{"protocol"},
		config: site(`
	@inside protocol http/2
	SHARE
	reverse_proxy @inside PRIVATE
	reverse_proxy PUBLIC`),
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
		name:    "php_fastcgi, root by address",
		traits:  []string{"address"},
		clients: []identity{with("of the script itself", func(id *identity) { id.path = "/events.php" })},
		config: site(`
	@inside remote_ip 127.0.0.2
	root ROOT
	root @inside ROOT/private
	SHARE
	php_fastcgi PHP`),
	},
	{
		name:   "php_fastcgi by language",
		traits: []string{"language"},
		config: site(`
	root ROOT
	@inside header Accept-Language eo
	SHARE
	php_fastcgi @inside PHP
	reverse_proxy PUBLIC`),
	},
	{
		name:    "a page that is no stream",
		traits:  []string{"cookie", "accept"},
		clients: []identity{with("of a page", func(id *identity) { id.path = "/page" })},
		config: site(`
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "the origin's word: language",
		traits: []string{"language"},
		config: site(`
	SHARE
	reverse_proxy LANGUAGE`),
	},
	{
		name: "trusted proxy that ends TLS",
		clients: []identity{with("by TLS", func(id *identity) {
			id.from = trustedProxy
			id.header["X-Forwarded-For"] = "10.1.2.3"
			id.header["X-Forwarded-Proto"] = "https"
			id.header["X-Forwarded-Host"] = "public.test"
		})},
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
	{
		name:   "a WebSocket matcher behind",
		shares: true,
		traits: []string{"language"},
		config: site(`
	@websocket {
		header Connection *Upgrade*
		header Upgrade websocket
	}
	SHARE
	reverse_proxy @websocket PRIVATE
	reverse_proxy PUBLIC`),
	},
	{
		name: "an answer behind that is no stream",
		config: site(`
	route {
		SHARE
		respond "gone" 410
	}
	handle_errors {
		respond "sorry"
	}`),
	},
	{
		name:   "an error behind",
		traits: []string{"agent"},
		config: site(`
	@inside header User-Agent Inside/*
	route {
		SHARE
		error @inside 410
		reverse_proxy PUBLIC
	}
	handle_errors {
		respond "sorry: {err.status_code}"
	}`),
	},
	{
		name:   "nothing behind",
		config: site("\troute {\n\t\tSHARE\n\t}"),
	},
	{
		name:   "two lines",
		traits: []string{"address"},
		config: site(`
	route {
		SHARE
		route {
			SHARE
			reverse_proxy PUBLIC
		}
	}`),
	},
}

// alice is the user of basic_auth, whose password is "inside".
const alice = "alice $2a$04$AWA.EyCIy0GZtZlrredIVukkGwHpUlUkWBw7oL0xy34VucY/jyoGG"
