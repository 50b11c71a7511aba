package oracle

// inFront are directives in front of the line that tell clients apart.
var inFront = []*testcase{
	{
		name:   "what a file matcher has found",
		traits: []string{"language"},
		config: site(`
	@found file {
		root ROOT
		try_files /{header.Accept-Language}.txt /index.html
	}
	handle @found {
		SHARE
		reverse_proxy PUBLIC {
			rewrite /found{file_match.relative}
		}
	}
	reverse_proxy PUBLIC`),
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
		line:   impatient,
		traits: []string{"address"},
		config: site(`
	@outside not remote_ip 127.0.0.2
	error @outside 503
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "respond 429 to outsiders",
		line:   impatient,
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
		name:   "basic_auth, shared by each user",
		line:   "sse_fanout {\n\tvary Authorization\n}",
		shares: true,
		crowd:  []identity{traits["authorization"].insider},
		traits: []string{"authorization"},
		clients: []identity{
			withHeader("with a wrong password", "Authorization", "Basic YWxpY2U6d3Jvbmc="),
		},
		config: site(`
	basic_auth {
		` + alice + `
	}
	SHARE
	reverse_proxy PUBLIC`),
	},
	{
		name:   "an intranet, asked from within",
		line:   "sse_fanout {\n\task_from 127.0.0.2\n}",
		shares: true,
		crowd:  []identity{traits["address"].insider},
		traits: []string{"address"},
		config: site(`
	@outside not remote_ip 127.0.0.2
	respond @outside 403
	SHARE
	reverse_proxy PUBLIC`),
	},
}

// alice is the user of basic_auth, whose password is "inside".
const alice = "alice $2a$04$AWA.EyCIy0GZtZlrredIVukkGwHpUlUkWBw7oL0xy34VucY/jyoGG"
