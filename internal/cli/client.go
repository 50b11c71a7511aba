// Package cli has the commands. sse-fanout is a server with one sse_fanout handler.
// sse-tail and sse-check listen to event streams, and know nothing of sse_fanout but how it
// turns clients away.
package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/check"
	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/tail"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

// maxEventSize is the greatest --max-event-size, in bytes.
const maxEventSize = 1 << 30

// The exit codes of sse-tail and sse-check. Those of bad usage and of a failed
// start are Caddy's own.
const (
	ExitUnreachable    = 2
	ExitRefused        = 3
	ExitNotEventStream = 4
	ExitTimeout        = 5
	ExitEventTooLarge  = 6
	ExitWarnings       = 7
	ExitBroken         = 8
)

// Tail prints the events of a stream as they come.
var Tail = caddycmd.Command{
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

// Check tells whether something on the way holds a stream back.
var Check = caddycmd.Command{
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
	3  refused: a status other than 200, or a stream that ends at once and asks
	   to come back later
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
	if err != nil || size == 0 || size > maxEventSize {
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

	t, err := newTail(fs)
	if err != nil {
		return 0, err
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
		sayEnd(t, err, status, fs.String("max-event-size"))
	}
	return status, nil
}

// newTail makes a tail from the flags of sse-tail.
func newTail(fs caddycmd.Flags) (*tail.Tail, error) {
	var err error
	t := &tail.Tail{
		Count:   fs.Int("count"),
		Quiet:   fs.Bool("quiet"),
		Out:     os.Stdout,
		Notices: os.Stderr,

		OutColours:    terminal.PaletteFor(os.Stdout),
		NoticeColours: terminal.PaletteFor(os.Stderr),
	}
	if t.Types, err = fs.GetStringArray("event"); err != nil {
		return nil, err
	}
	switch json, raw := fs.Bool("json"), fs.Bool("raw"); {
	case json && raw:
		return nil, errors.New("--json and --raw are two different forms: choose one")
	case raw && len(t.Types) > 0:
		return nil, errors.New("--raw prints all bytes, so --event cannot choose among them")
	case json:
		t.Form = tail.JSON
	case raw:
		t.Form = tail.Raw
	}
	if fs.Changed("count") && t.Count < 1 {
		return nil, fmt.Errorf("invalid --count: %d is not a positive number", t.Count)
	}
	return t, nil
}

// sayEnd tells why a tail has ended.
func sayEnd(t *tail.Tail, err error, status int, maxEventSize string) {
	text := err.Error()
	switch status {
	case ExitUnreachable:
		text = "unreachable: " + text
	case ExitRefused:
		text = "refused: " + text
	}
	if errors.Is(err, sse.ErrEventTooLarge) {
		text = "an event, or a line, is larger than " + maxEventSize + " (--max-event-size)"
	}
	sign := t.NoticeColours.Red("✗")
	if status == 0 {
		sign = t.NoticeColours.Dim("■")
	}
	fmt.Fprintln(os.Stderr, sign, text)
}

// exitCode returns what to exit with after an error of a client.
func exitCode(err error) int {
	switch {
	case err == nil || errors.Is(err, eventsource.ErrStopped) || eventsource.IsTurnedAway(err):
		return caddy.ExitCodeSuccess
	case errors.Is(err, tail.ErrTimeout):
		return ExitTimeout
	case errors.Is(err, sse.ErrEventTooLarge):
		return ExitEventTooLarge
	}
	if _, ok := errors.AsType[*eventsource.StatusError](err); ok {
		return ExitRefused
	}
	if _, ok := errors.AsType[*eventsource.TypeError](err); ok {
		return ExitNotEventStream
	}
	if _, ok := errors.AsType[*eventsource.ConnectError](err); ok {
		return ExitUnreachable
	}
	if _, ok := errors.AsType[*eventsource.LostError](err); ok {
		return ExitUnreachable
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
		origin, ok := fields.SerializeOrigin(c.Origin)
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
		return ExitTimeout
	case errors.Is(report.Err, eventsource.ErrStopped) || eventsource.IsTurnedAway(report.Err):
		return ExitRefused
	case report.Err != nil:
		return exitCode(report.Err)
	case report.Verdict == check.Failure:
		return ExitBroken
	case report.Verdict == check.Warning:
		return ExitWarnings
	}
	return caddy.ExitCodeSuccess
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
