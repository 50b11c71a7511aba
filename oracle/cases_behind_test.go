package oracle

// behind are what stands behind the line, and what it answers.
var behind = []*testcase{
	{
		name:   "an origin that is away, and another one for errors",
		traits: []string{"address", "language"},
		config: `http://:PORT {
	handle {
		SHARE
		reverse_proxy 127.0.0.1:9
	}
	handle_errors {
		reverse_proxy PUBLIC
	}
}
`,
	},
	{
		name:   "an error behind",
		traits: []string{"role"},
		config: site(`
	route {
		SHARE
		@insider header X-Role insider
		reverse_proxy @insider PUBLIC
		error "not now" 503
	}`),
	},
	{
		name:   "forward_auth behind",
		traits: []string{"address"},
		config: site(`
	route {
		SHARE
		forward_auth AUTH {
			uri /auth
		}
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:   "an answer of its own behind",
		traits: []string{"address"},
		config: site(`
	route {
		SHARE
		header Content-Type text/event-stream
		respond "data: {remote_host}\n\n"
	}`),
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
		name:   "an expression that fails without a client",
		traits: []string{"address"},
		config: site(`
	@inside expression ` + "`size({http.request.remote.host}) > 0`" + `
	SHARE
	reverse_proxy @inside PRIVATE
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
