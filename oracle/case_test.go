package oracle

// A testcase is a configuration and the clients that connect.
type testcase struct {
	name string

	// config is a Caddyfile, without global options if they are the usual ones. In it, SHARE stands for the
	// line or for nothing; PORT and PORT2 for the ports that clients connect to;
	// PUBLIC, PRIVATE, AUTH and PHP for origins, LANGUAGE for one whose answer
	// varies by language, GREETER for one that begins a stream with an event even
	// if it resumes, and takes its time for that; ROOT for a directory of files; TLS
	// for a tls directive, and CA for the file of the authority that has issued the
	// client's certificate.
	config string

	// after is loaded while clients are connected, unless it is empty.
	after string

	// line is what SHARE stands for, if it is not just the directive.
	line string

	// traits are those that clients have: one client for each. Two clients that
	// have none connect in any case.
	traits []string

	// clients connect as well.
	clients []identity

	// tls is set if clients speak it.
	tls bool

	// shares is set if clients without a trait, or those in crowd, must share one
	// connection.
	shares bool
	crowd  []identity

	// simpler returns cases that are a part of this one, if it was generated.
	simpler func() []*testcase
}

// impatient keeps clients waiting but a moment for a stranger who is told to come back
// later.
const impatient = `sse_fanout {
	wait 300ms
}`

// site returns the Caddyfile of one site that answers whatever host it is asked for.
func site(body string) string {
	return "http://:PORT {\n" + body + "\n}\n"
}

// identities returns the clients, those without a trait first.
func (c *testcase) identities() []identity {
	ids := []identity{plain, another}
	for _, name := range c.traits {
		ids = append(ids, traits[name].insider)
	}
	return append(ids, c.clients...)
}

// share returns what SHARE stands for in the variant with the line.
func (c *testcase) share() string {
	if c.line != "" && *line != "" {
		return c.line
	}
	return *line
}

// reloaded returns the Caddyfile after the reload.
func (c *testcase) reloaded() string {
	if c.after != "" {
		return c.after
	}
	return c.config
}

// scheme is what clients of the case speak.
func (c *testcase) scheme() string {
	if c.tls {
		return "https"
	}
	return "http"
}
