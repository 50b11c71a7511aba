package cli

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/sse-fanout/caddy-sse-fanout/internal/check"
	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/tail"
)

// flagsOf parses args as a command does.
func flagsOf(t *testing.T, command caddycmd.Command, args ...string) (caddycmd.Flags, error) {
	t.Helper()
	cmd := new(cobra.Command)
	command.CobraFunc(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return caddycmd.Flags{}, err
	}
	return caddycmd.Flags{FlagSet: cmd.Flags()}, cmd.ValidateArgs(cmd.Flags().Args())
}

func TestClientFlags(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string // of the error; empty means none
	}{
		{[]string{"localhost:80", "-H", "A: b", "--max-event-size", "1KiB", "-k", "--http1.1"}, ""},
		{nil, "expected the URL of one event stream, got 0 arguments"},
		{[]string{"a", "b"}, "expected the URL of one event stream, got 2 arguments"},
		{[]string{"http://a b"}, `"http://a b" is not a URL`},
		{[]string{"gopher://a"}, `"gopher://a" is not an http or https URL`},
		{[]string{"a", "-H", "b"}, `invalid --header: header "b" has no colon`},
		{[]string{"a", "--max-event-size", "0"}, `invalid --max-event-size: "0" is not a size`},
		{[]string{"a", "--max-event-size", "2GiB"}, `invalid --max-event-size: "2GiB" is not a size`},
		{[]string{"a", "--max-event-size", "-1"}, `invalid --max-event-size: "-1" is not a size`},
	} {
		for _, command := range []caddycmd.Command{Tail, Check} {
			fs, err := flagsOf(t, command, tc.args...)
			if err == nil {
				_, err = newClient(fs)
			}
			if err == nil != (tc.want == "") || err != nil && !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("%s %q: got %v, want %q", command.Name, tc.args, err, tc.want)
			}
		}
	}
	for _, args := range [][]string{
		{"a", "--json", "--raw"},
		{"a", "--raw", "--event", "x"},
		{"a", "--count", "0"},
		{"a", "--count", "-3"},
		{"a", "--timeout", "soon"},
		{"a", "--timeout", "-1s"},
		{"a", "--last-event-id", "a\nb"},
	} {
		fs, err := flagsOf(t, Tail, args...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cmdTail(t.Context(), fs); err == nil {
			t.Errorf("%q: got no error", args)
		}
	}
	for _, args := range [][]string{
		{"a", "--duration", "0"},
		{"a", "--duration", "x"},
		{"a", "--origin", "example.com"},
		{"a", "--origin", "https://example.com/path"},
	} {
		fs, err := flagsOf(t, Check, args...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cmdCheck(t.Context(), fs); err == nil {
			t.Errorf("%q: got no error", args)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{eventsource.ErrStopped, 0},
		{&eventsource.TurnedAwayError{}, 0},
		{&eventsource.ConnectError{Err: io.EOF}, ExitUnreachable},
		{&eventsource.LostError{Err: io.EOF}, ExitUnreachable},
		{&eventsource.StatusError{Code: 404}, ExitRefused},
		{&eventsource.TypeError{}, ExitNotEventStream},
		{tail.ErrTimeout, ExitTimeout},
		{sse.ErrEventTooLarge, ExitEventTooLarge},
		{errors.New("no space left on device"), 1},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: got %d, want %d", tc.err, got, tc.want)
		}
	}
	for _, tc := range []struct {
		report check.Report
		want   int
	}{
		{check.Report{Verdict: check.OK}, 0},
		{check.Report{Verdict: check.Note}, 0},
		{check.Report{Verdict: check.Warning}, ExitWarnings},
		{check.Report{Verdict: check.Failure}, ExitBroken},
		{check.Report{Verdict: check.Failure, Err: eventsource.ErrStopped}, ExitRefused},
		{check.Report{Verdict: check.Failure, Err: &eventsource.TurnedAwayError{}}, ExitRefused},
		{check.Report{Verdict: check.Failure, Err: check.ErrNoAnswer}, ExitTimeout},
		{check.Report{Verdict: check.Failure, Err: &eventsource.StatusError{}}, ExitRefused},
	} {
		if got := checkExitCode(&tc.report); got != tc.want {
			t.Errorf("%v: got %d, want %d", tc.report, got, tc.want)
		}
	}
}
