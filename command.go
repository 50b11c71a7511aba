package ssefanout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/sse-fanout/caddy-sse-fanout/internal/check"
	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/tail"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

func init() {
	caddycmd.RegisterCommand(fanoutCommand)
	caddycmd.RegisterCommand(tailCommand)
	caddycmd.RegisterCommand(checkCommand)
}

// The exit codes of sse-tail and sse-check. Those of bad usage and of a failed
// start are Caddy's own.
const (
	exitUnreachable    = 2
	exitRefused        = 3
	exitNotEventStream = 4
	exitTimeout        = 5
	exitEventTooLarge  = 6
	exitWarnings       = 7
	exitBroken         = 8
)

var fanoutCommand = caddycmd.Command{
	Name:  "sse-fanout",
	Usage: `[--from <addr>] --to <addr> [--heartbeat "15s"] [--history "1000 5m 4MiB"] [--change-host-header] [--insecure] [--internal-certs] [--disable-redirects] [--header-up "Field: value"] [--header-down "Field: value"] [--access-log] [--debug] [...]`,
	Short: "Shares one connection to each event stream among all clients",
	Long: `
Answers at the --from address with the event streams of the --to address, and
holds one connection for each stream, however many clients listen. Restarts of
the server behind it are invisible to them.

Every GET is shared: all clients of a URL get the same events, and cookies and
credentials of a client do not reach the server, unless --vary names them, as in
--vary Cookie. Everything else is passed on untouched.

Multiple --to addresses may be specified by repeating the flag. Unless otherwise
specified in the addresses, the --from address will be assumed to be HTTPS if a
hostname is given, and the --to address will be assumed to be HTTP.

Each option of the sse_fanout directive is a flag with dashes for underscores,
and takes what it takes in the Caddyfile, as one word of the shell:

	$ caddy sse-fanout --from :8080 --to localhost:9000 \
	      --history "5000 10m" --heartbeat "10s event ping" --cors-origins "*"

If serving HTTPS:
  --disable-redirects can be used to avoid binding to the HTTP port.
  --internal-certs can be used to force issuance certs using the internal
    CA instead of attempting to issue a public certificate.

For proxying:
  --header-up can be used to set a request header to send to the upstream.
  --header-down can be used to set a response header to send back to the client.
  --change-host-header sets the Host header on the request to the address
    of the upstream, instead of defaulting to the incoming Host header.
  --insecure disables TLS verification with the upstream. WARNING: THIS
    DISABLES SECURITY BY NOT VERIFYING THE UPSTREAM'S CERTIFICATE.
`,
	CobraFunc: func(cmd *cobra.Command) {
		cmd.Args = cobra.NoArgs
		cmd.Flags().StringP("from", "f", "localhost", "Address on which to receive traffic")
		cmd.Flags().StringSliceP("to", "t", []string{}, "Upstream address(es) from which to get the streams")
		cmd.Flags().BoolP("change-host-header", "c", false, "Set upstream Host header to address of upstream")
		cmd.Flags().BoolP("insecure", "", false, "Disable TLS verification (WARNING: DISABLES SECURITY BY NOT VERIFYING TLS CERTIFICATES!)")
		cmd.Flags().BoolP("disable-redirects", "r", false, "Disable HTTP->HTTPS redirects")
		cmd.Flags().BoolP("internal-certs", "i", false, "Use internal CA for issuing certs")
		cmd.Flags().StringArrayP("header-up", "H", []string{}, "Set a request header to send to the upstream (format: \"Field: value\")")
		cmd.Flags().StringArrayP("header-down", "d", []string{}, "Set a response header to send back to the client (format: \"Field: value\")")
		cmd.Flags().BoolP("access-log", "", false, "Enable the access log")
		cmd.Flags().BoolP("debug", "v", false, "Enable verbose debug logs")
		for option, syntax := range usage {
			cmd.Flags().StringArrayP(flagOf(option), "", []string{}, "Caddyfile `option`: "+syntax)
		}
		cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdFanout)
	},
}

var tailCommand = caddycmd.Command{
	Name:  "sse-tail",
	Usage: `<url> [--json | --raw] [--header "Name: value"] [--last-event-id <id>] [--event <type>] [--count <n>] [--timeout <duration>] [--no-reconnect] [--quiet] [--max-event-size <size>] [--insecure] [--http1.1]`,
	Short: "Prints the events of a stream as they come",
	Long: `
Connects to an event stream as a browser's EventSource does, and prints its
events as they come: when they came, how long after the one before, their id,
their type, and their data.

A URL without a scheme is HTTP on this machine, and HTTPS elsewhere.

Like EventSource, it reconnects when the stream ends or breaks, after the time
that the server has asked for, with the last event id. It gives up for good if
the server answers with anything but an event stream, and stops if that is a
204. Unlike EventSource, it also gives up if the first connection fails.

Events go to the standard output; what becomes of the connection is told on the
standard error, unless --quiet is given. There are colours only in a terminal,
and none if NO_COLOR is set.

--json prints an object for each event, on a line of its own, with "time",
"id" (if the event has one), "type", "data" (as text), "retry" (in milliseconds),
and "last_event_id", which is the one in force.

--raw prints the bytes as they come: comments, heartbeats and all.

Exit codes:

	0  came to an end that was asked for: --count events, an interrupt, the
	   end of the stream with --no-reconnect, or the server's 204
	1  bad usage
	2  unreachable: the first connection failed, or the connection broke with
	   --no-reconnect
	3  refused: a status other than 200 and 204
	4  not an event stream
	5  --timeout is over
	6  an event is larger than --max-event-size
`,
	CobraFunc: func(cmd *cobra.Command) {
		clientFlags(cmd)
		cmd.Flags().BoolP("json", "j", false, "Print an object for each event, each on a line")
		cmd.Flags().BoolP("raw", "r", false, "Print the bytes as they come")
		cmd.Flags().StringP("last-event-id", "l", "", "Go on after the event with this `id`")
		cmd.Flags().StringArrayP("event", "e", []string{}, "Print only events of this `type`; those without are of type message (may be repeated)")
		cmd.Flags().IntP("count", "n", 0, "Stop after this many events (default: do not)")
		cmd.Flags().StringP("timeout", "t", "", "Stop after this `duration` (default: do not)")
		cmd.Flags().Bool("no-reconnect", false, "Stop when the connection ends")
		cmd.Flags().BoolP("quiet", "q", false, "Say nothing of the connection")
		cmd.RunE = withStatus(cmdTail)
	},
}

var checkCommand = caddycmd.Command{
	Name:  "sse-check",
	Usage: `<url> [--duration <duration>] [--origin <site>] [--json] [--header "Name: value"] [--max-event-size <size>] [--insecure] [--http1.1]`,
	Short: "Tells whether an event stream arrives as it is sent",
	Long: `
Listens to an event stream for a while, as a browser would, and tells whether
anything between here and its origin holds events back, cuts the stream or
compresses it; whether it goes on for a client that comes back; and what is wrong
with its header. For each thing that is not as it should be it says what to do.

It can judge only what it has seen. So it says what it has not: listen for longer
than the silences that are to be expected (--duration 2m), and have the server
send a few events meanwhile, best with the time in them.

It makes one connection for --duration, and after it another, for at most 5s,
with the id of an event that it has seen.

A URL without a scheme is HTTP on this machine, and HTTPS elsewhere.

Exit codes:

	0  the stream arrives as it is sent
	1  bad usage
	2  unreachable
	3  refused: a status other than 200
	4  not an event stream
	5  no answer within --duration
	6  an event is larger than --max-event-size
	7  it works, with warnings
	8  it is broken: held back, cut, or a copy from a cache
`,
	CobraFunc: func(cmd *cobra.Command) {
		clientFlags(cmd)
		cmd.Flags().StringP("duration", "d", check.DefaultDuration.String(), "For how long to listen")
		cmd.Flags().StringP("origin", "o", "", "Whether pages of this `site` may read the stream, as in https://example.com")
		cmd.Flags().BoolP("json", "j", false, "Print the report as JSON")
		cmd.RunE = withStatus(cmdCheck)
	},
}

// flagOf returns the name of the flag that sets an option.
func flagOf(option string) string {
	return strings.ReplaceAll(option, "_", "-")
}

func cmdFanout(fs caddycmd.Flags) (int, error) {
	caddy.TrapSignals()

	cfg, err := fanoutConfig(fs)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if err := caddy.Run(cfg); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	to, _ := fs.GetStringSlice("to")
	caddy.Log().Info("caddy sharing event streams", zap.String("from", fs.String("from")), zap.Strings("to", to))

	select {}
}

// fanoutConfig builds the configuration that the flags of sse-fanout ask for.
func fanoutConfig(fs caddycmd.Flags) (*caddy.Config, error) {
	from := fs.String("from")
	addr, err := httpcaddyfile.ParseAddress(from)
	if err != nil {
		return nil, fmt.Errorf("invalid downstream address %s: %w", from, err)
	}
	if addr.Path != "" {
		return nil, fmt.Errorf("paths are not allowed: %s", from)
	}
	httpPort, httpsPort := strconv.Itoa(caddyhttp.DefaultHTTPPort), strconv.Itoa(caddyhttp.DefaultHTTPSPort)
	if addr.Scheme == "" {
		addr.Scheme = "https"
		if addr.Port == httpPort || addr.Host == "" {
			addr.Scheme = "http"
		}
	}
	if addr.Port == "" {
		addr.Port = httpsPort
		if addr.Scheme == "http" {
			addr.Port = httpPort
		}
	}

	if _, err := strconv.ParseUint(addr.Port, 10, 16); err != nil || strings.Contains(addr.Host, ":") && net.ParseIP(addr.Host) == nil {
		return nil, fmt.Errorf("invalid downstream address %s: expected [<scheme>://][<host>][:<port>]", from)
	}

	proxy, err := fanoutProxy(fs)
	if err != nil {
		return nil, err
	}
	handler := &Handler{SourceRaw: caddyconfig.JSONModuleObject(proxy, "handler", "reverse_proxy", nil)}
	for _, option := range slices.Sorted(maps.Keys(usage)) {
		values, err := fs.GetStringArray(flagOf(option))
		if err != nil {
			return nil, err
		}
		if !fs.Changed(flagOf(option)) {
			continue
		}
		if err := handler.setOption(option, strings.Join(values, " ")); err != nil {
			return nil, fmt.Errorf("invalid --%s: %w; expected: %s", flagOf(option), err, usage[option])
		}
	}

	route := caddyhttp.Route{
		HandlersRaw: []json.RawMessage{caddyconfig.JSONModuleObject(handler, "handler", "sse_fanout", nil)},
	}
	if addr.Host != "" {
		route.MatcherSetsRaw = []caddy.ModuleMap{{"host": caddyconfig.JSON(caddyhttp.MatchHost{addr.Host}, nil)}}
	}
	server := &caddyhttp.Server{
		Routes: caddyhttp.RouteList{route},
		Listen: []string{":" + addr.Port},
	}
	if fs.Bool("access-log") {
		server.Logs = &caddyhttp.ServerLogConfig{}
	}
	if addr.Scheme == "http" {
		server.AutoHTTPS = &caddyhttp.AutoHTTPSConfig{Disabled: true}
	} else if fs.Bool("disable-redirects") {
		server.AutoHTTPS = &caddyhttp.AutoHTTPSConfig{DisableRedir: true}
	}

	cfg := &caddy.Config{
		Admin: &caddy.AdminConfig{
			Disabled: true,
			Config:   &caddy.ConfigSettings{Persist: new(false)},
		},
		AppsRaw: caddy.ModuleMap{
			"http": caddyconfig.JSON(caddyhttp.App{Servers: map[string]*caddyhttp.Server{"fanout": server}}, nil),
		},
	}
	if fs.Bool("internal-certs") && addr.Host != "" {
		cfg.AppsRaw["tls"] = caddyconfig.JSON(caddytls.TLS{
			Automation: &caddytls.AutomationConfig{
				Policies: []*caddytls.AutomationPolicy{{
					SubjectsRaw: []string{addr.Host},
					IssuersRaw:  []json.RawMessage{json.RawMessage(`{"module":"internal"}`)},
				}},
			},
		}, nil)
	}
	if fs.Bool("debug") {
		cfg.Logging = &caddy.Logging{
			Logs: map[string]*caddy.CustomLog{
				"default": {BaseLog: caddy.BaseLog{Level: zap.DebugLevel.CapitalString()}},
			},
		}
	}
	return cfg, nil
}

// setOption sets an option to what could stand behind its name in a Caddyfile.
func (o *Options) setOption(option, value string) error {
	if strings.ContainsAny(value, "\r\n") {
		return errors.New("it must be a single line")
	}
	// The line after it is where its arguments end.
	tokens, err := caddyfile.Tokenize([]byte(option+" "+value+"\n}"), "")
	if err != nil {
		return err
	}
	d := caddyfile.NewDispenser(tokens)
	d.Next()
	args := &arguments{d: d, option: option}
	o.parse(option, args)
	args.end()
	if args.err != nil {
		return args.err
	}
	return o.validate()
}

// fanoutProxy builds the reverse proxy that answers. Its own Caddyfile parser
// reads the addresses, so that they can be whatever they can be there.
func fanoutProxy(fs caddycmd.Flags) (*reverseproxy.Handler, error) {
	to, err := fs.GetStringSlice("to")
	if err != nil {
		return nil, fmt.Errorf("invalid to flag: %w", err)
	}
	if len(to) == 0 {
		return nil, errors.New("--to is required")
	}
	tokens := []caddyfile.Token{{Line: 1, Text: "reverse_proxy"}}
	var secure bool
	for _, address := range to {
		if address == "" || strings.ContainsAny(address, " \t\r\n{}") {
			return nil, fmt.Errorf("invalid upstream address %q", address)
		}
		secure = secure || strings.HasPrefix(address, "https://")
		tokens = append(tokens, caddyfile.Token{Line: 1, Text: address})
	}
	if fs.Bool("insecure") {
		if !secure {
			return nil, errors.New("--insecure needs an upstream address that begins with https://")
		}
		for i, line := range [...]string{"{", "transport http {", "tls_insecure_skip_verify", "}", "}"} {
			for word := range strings.FieldsSeq(line) {
				tokens = append(tokens, caddyfile.Token{Line: 1 + i, Text: word})
			}
		}
	}
	proxy := new(reverseproxy.Handler)
	if err := proxy.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
		// Without the place in a file that there is not.
		text, _, _ := strings.Cut(err.Error(), ", at ")
		return nil, fmt.Errorf("invalid upstream address %s: %s", strings.Join(to, ", "), text)
	}

	up, err := headerFlag(fs, "header-up")
	if err != nil {
		return nil, err
	}
	if fs.Bool("change-host-header") {
		up.Set("Host", "{http.reverse_proxy.upstream.hostport}")
	}
	down, err := headerFlag(fs, "header-down")
	if err != nil {
		return nil, err
	}
	if len(up) > 0 || len(down) > 0 {
		proxy.Headers = new(headers.Handler)
	}
	if len(up) > 0 {
		proxy.Headers.Request = &headers.HeaderOps{Set: up}
	}
	if len(down) > 0 {
		proxy.Headers.Response = &headers.RespHeaderOps{HeaderOps: &headers.HeaderOps{Set: down}}
	}
	return proxy, nil
}

// headerFlag reads a flag whose values are headers.
func headerFlag(fs caddycmd.Flags, name string) (http.Header, error) {
	lines, err := fs.GetStringArray(name)
	if err != nil {
		return nil, fmt.Errorf("invalid header flag: %w", err)
	}
	header, err := eventsource.ParseHeader(lines)
	if err != nil {
		return nil, fmt.Errorf("invalid --%s: %w", name, err)
	}
	return header, nil
}

// clientFlags adds the flags that sse-tail and sse-check have in common.
func clientFlags(cmd *cobra.Command) {
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("expected the URL of one event stream, got %d arguments", len(args))
		}
		return nil
	}
	cmd.Flags().StringArrayP("header", "H", []string{}, "Send this request header, as in \"Name: value\" (may be repeated)")
	cmd.Flags().String("max-event-size", "16MiB", "Give up on an event, or a line, of more than this `size`")
	cmd.Flags().BoolP("insecure", "k", false, "Do not verify the server's certificate")
	cmd.Flags().Bool("http1.1", false, "Do not use HTTP/2")
}

// newClient makes a client from those flags.
func newClient(fs caddycmd.Flags) (*eventsource.Client, error) {
	url, err := eventsource.ParseURL(fs.Arg(0))
	if err != nil {
		return nil, err
	}
	header, err := headerFlag(fs, "header")
	if err != nil {
		return nil, err
	}
	size, err := humanize.ParseBytes(fs.String("max-event-size"))
	if err != nil || size == 0 || size > largestEventSize {
		return nil, fmt.Errorf("invalid --max-event-size: %q is not a size from 1B to 1GiB", fs.String("max-event-size"))
	}
	return &eventsource.Client{
		URL:          url,
		Header:       header,
		MaxEventSize: int(size),
		Transport: eventsource.Connection{
			Insecure: fs.Bool("insecure"),
			HTTP1:    fs.Bool("http1.1"),
		}.Transport(),
	}, nil
}

// durationFlag reads a flag that is a positive duration.
func durationFlag(fs caddycmd.Flags, name string) (time.Duration, error) {
	d, err := caddy.ParseDuration(fs.String(name))
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("invalid --%s: %q is not a positive duration, such as 10s", name, fs.String(name))
	}
	return d, nil
}

// withStatus makes a cobra function of one that returns an exit code, and an
// error only for bad usage, of which cobra tells.
func withStatus(run func(context.Context, caddycmd.Flags) (int, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		status, err := run(ctx, caddycmd.Flags{FlagSet: cmd.Flags()})
		if err != nil {
			return err
		}
		cmd.SilenceErrors = true // all has been said
		return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) {
			return status, nil
		})(cmd, args)
	}
}

func cmdTail(ctx context.Context, fs caddycmd.Flags) (int, error) {
	client, err := newClient(fs)
	if err != nil {
		return 0, err
	}
	client.LastEventID = fs.String("last-event-id")
	if err := eventsource.CheckLastEventID(client.LastEventID); err != nil {
		return 0, fmt.Errorf("invalid --last-event-id: %w", err)
	}
	client.NoReconnect = fs.Bool("no-reconnect")

	t := &tail.Tail{
		Count:   fs.Int("count"),
		Quiet:   fs.Bool("quiet"),
		Out:     os.Stdout,
		Notices: os.Stderr,

		OutColours:    terminal.PaletteFor(os.Stdout),
		NoticeColours: terminal.PaletteFor(os.Stderr),
	}
	if t.Types, err = fs.GetStringArray("event"); err != nil {
		return 0, err
	}
	switch json, raw := fs.Bool("json"), fs.Bool("raw"); {
	case json && raw:
		return 0, errors.New("--json and --raw are two different forms: choose one")
	case raw && len(t.Types) > 0:
		return 0, errors.New("--raw prints all bytes, so --event cannot choose among them")
	case json:
		t.Form = tail.JSON
	case raw:
		t.Form = tail.Raw
	}
	if fs.Changed("count") && t.Count < 1 {
		return 0, fmt.Errorf("invalid --count: %d is not a positive number", t.Count)
	}
	if fs.Changed("timeout") {
		d, err := durationFlag(fs, "timeout")
		if err != nil {
			return 0, err
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, tail.ErrTimeout)
		defer cancel()
	}

	err = t.Run(ctx, client)
	status := exitCode(err)
	if status == caddy.ExitCodeFailedStartup {
		return 0, fmt.Errorf("writing events: %w", err)
	}
	if err != nil && (status != 0 || !t.Quiet) {
		text := err.Error()
		switch status {
		case exitUnreachable:
			text = "unreachable: " + text
		case exitRefused:
			text = "refused: " + text
		}
		if errors.Is(err, sse.ErrEventTooLarge) {
			text = "an event, or a line, is larger than " + fs.String("max-event-size") + " (--max-event-size)"
		}
		sign := t.NoticeColours.Red("✗")
		if status == 0 {
			sign = t.NoticeColours.Dim("■")
		}
		fmt.Fprintln(os.Stderr, sign, text)
	}
	return status, nil
}

// exitCode returns what to exit with after an error of a client.
func exitCode(err error) int {
	switch {
	case err == nil || errors.Is(err, eventsource.ErrStopped):
		return caddy.ExitCodeSuccess
	case errors.Is(err, tail.ErrTimeout):
		return exitTimeout
	case errors.Is(err, sse.ErrEventTooLarge):
		return exitEventTooLarge
	}
	if _, ok := errors.AsType[*eventsource.StatusError](err); ok {
		return exitRefused
	}
	if _, ok := errors.AsType[*eventsource.TypeError](err); ok {
		return exitNotEventStream
	}
	if _, ok := errors.AsType[*eventsource.ConnectError](err); ok {
		return exitUnreachable
	}
	if _, ok := errors.AsType[*eventsource.LostError](err); ok {
		return exitUnreachable
	}
	return caddy.ExitCodeFailedStartup
}

func cmdCheck(ctx context.Context, fs caddycmd.Flags) (int, error) {
	client, err := newClient(fs)
	if err != nil {
		return 0, err
	}
	c := &check.Check{Client: *client, Origin: fs.String("origin"), Forced1: fs.Bool("http1.1")}
	if c.Duration, err = durationFlag(fs, "duration"); err != nil {
		return 0, err
	}
	if c.Origin != "" {
		origin, ok := serializeOrigin(c.Origin)
		if !ok {
			return 0, fmt.Errorf("invalid --origin: %q is no site such as https://example.com", c.Origin)
		}
		c.Origin = origin
	}
	asJSON := fs.Bool("json")
	if terminal.Is(os.Stderr) {
		colours := terminal.PaletteFor(os.Stderr)
		c.Progress = func(elapsed, total time.Duration, events, heartbeats int) {
			text := fmt.Sprintf("  listening, %ds of %s: %d events, %d heartbeats", int(elapsed.Seconds()), terminal.Duration(total), events, heartbeats)
			fmt.Fprint(os.Stderr, "\r\x1b[K", colours.Dim(text))
		}
	}
	report := c.Run(ctx)
	if c.Progress != nil {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}

	if asJSON {
		err = report.WriteJSON(os.Stdout)
	} else {
		err = report.Write(os.Stdout, terminal.PaletteFor(os.Stdout))
	}
	if err != nil {
		return 0, err
	}
	return checkExitCode(report), nil
}

// checkExitCode returns what to exit with after a check.
func checkExitCode(report *check.Report) int {
	switch {
	case errors.Is(report.Err, check.ErrNoAnswer):
		return exitTimeout
	case errors.Is(report.Err, eventsource.ErrStopped):
		return exitRefused
	case report.Err != nil:
		return exitCode(report.Err)
	case report.Verdict == check.Failure:
		return exitBroken
	case report.Verdict == check.Warning:
		return exitWarnings
	}
	return caddy.ExitCodeSuccess
}
