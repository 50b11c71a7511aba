package oracle

import "testing"

// certificates are clients that differ in what only TLS has.
var certificates = []identity{
	with("with a certificate", func(id *identity) { id.cert = true }),
	with("over HTTP/2", func(id *identity) { id.protocol = "h2" }),
	with("over HTTP/2 with a certificate", func(id *identity) { id.protocol, id.cert = "h2", true }),
}

// secure returns the Caddyfile of a site over TLS that asks clients for a certificate.
func secure(mode, body string) string {
	return "https://:PORT {\n\tTLS {\n\t\tclient_auth {\n\t\t\tmode " + mode + "\n\t\t\ttrust_pool file CA\n\t\t}\n\t}\n" + body + "\n}\n"
}

var overTLS = []*testcase{
	{
		name:   "bare",
		tls:    true,
		shares: true,
		traits: []string{"protocol", "address", "host"},
		config: "https://:PORT {\n\tTLS\n\tSHARE\n\treverse_proxy PUBLIC\n}\n",
	},
	{
		name:    "redirect of what is not over TLS",
		tls:     true,
		shares:  true,
		clients: certificates,
		config:  "https://:PORT {\n\tTLS\n\t@plain protocol http\n\tredir @plain https://{host}{uri}\n\tSHARE\n\treverse_proxy PUBLIC\n}\n",
	},
	{
		name:    "a certificate that nobody looks at",
		tls:     true,
		shares:  true,
		clients: certificates,
		config:  secure("verify_if_given", "\tSHARE\n\treverse_proxy PUBLIC"),
	},
	{
		name:    "blocks by certificate",
		tls:     true,
		clients: certificates,
		config: secure("verify_if_given", `	@inside vars_regexp {http.request.tls.client.subject} insider
	handle @inside {
		SHARE
		reverse_proxy PRIVATE
	}
	handle {
		SHARE
		reverse_proxy PUBLIC
	}`),
	},
	{
		name:    "blocks by expression of the certificate",
		tls:     true,
		clients: certificates,
		config: secure("verify_if_given", `	@outside expression `+"`{http.request.tls.client.subject} == null`"+`
	handle @outside {
		SHARE
		reverse_proxy PUBLIC
	}
	handle {
		SHARE
		reverse_proxy PRIVATE
	}`),
	},
	{
		name:    "certificate looked at behind",
		tls:     true,
		clients: certificates,
		config: secure("verify_if_given", `	@inside vars_regexp {http.request.tls.client.subject} insider
	SHARE
	reverse_proxy @inside PRIVATE
	reverse_proxy PUBLIC`),
	},
	{
		name:    "certificate mapped in front",
		tls:     true,
		clients: certificates,
		config: secure("verify_if_given", `	map {http.request.tls.client.subject} {who} {
		~insider insider
		default  nobody
	}
	SHARE
	reverse_proxy PUBLIC {
		header_up X-Site-Who {who}
	}`),
	},
	{
		name:    "certificate required",
		tls:     true,
		clients: certificates,
		config:  secure("require_and_verify", "\tSHARE\n\treverse_proxy PUBLIC"),
	},
	{
		name:    "version of HTTP in front",
		tls:     true,
		clients: certificates,
		config: `https://:PORT {
	TLS
	@second protocol http/2+
	handle @second {
		SHARE
		reverse_proxy PRIVATE
	}
	handle {
		SHARE
		reverse_proxy PUBLIC
	}
}
`,
	},
	{
		name:    "version of HTTP behind",
		tls:     true,
		clients: certificates,
		config: `https://:PORT {
	TLS
	@second protocol http/2+
	SHARE
	reverse_proxy @second PRIVATE
	reverse_proxy PUBLIC
}
`,
	},
	{
		name:   "name that the client has sent in the handshake",
		tls:    true,
		traits: []string{"host"},
		config: `https://site.test:PORT, https://inside.test:PORT {
	TLS
	@named vars {http.request.tls.server_name} inside.test
	handle @named {
		SHARE
		reverse_proxy PRIVATE
	}
	handle {
		SHARE
		reverse_proxy PUBLIC
	}
}
`,
	},
	{
		name:    "a certificate is demanded by a reload",
		tls:     true,
		clients: certificates,
		config:  "https://:PORT {\n\tTLS\n\tSHARE\n\treverse_proxy PUBLIC\n}\n",
		after:   secure("require_and_verify", "\tSHARE\n\treverse_proxy PRIVATE"),
	},
	{
		name:    "insiders by certificate get another origin by a reload",
		tls:     true,
		clients: certificates,
		config:  secure("verify_if_given", "\tSHARE\n\treverse_proxy PUBLIC"),
		after: secure("verify_if_given", `	@inside vars_regexp {http.request.tls.client.subject} insider
	SHARE
	reverse_proxy @inside PRIVATE
	reverse_proxy PUBLIC`),
	},
}

// TestTLS runs sites over TLS, whose clients may show certificates.
func TestTLS(t *testing.T) {
	check(t, overTLS)
}
