package demo_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	// What cmd/caddy has built in.
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sse-fanout/caddy-sse-fanout"
	_ "github.com/sse-fanout/caddy-sse-fanout/internal/demo"
)

// TestExample keeps Caddyfile.example from rotting: the part that runs, and
// the cases in its comments, which people copy.
func TestExample(t *testing.T) {
	const name = "../../Caddyfile.example"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(caddyfile.Format(text), text) {
		t.Error("the file is not as caddy fmt would write it")
	}
	t.Run("running", func(t *testing.T) { validate(t, text) })

	_, comments, found := bytes.Cut(text, []byte("\n# The common cases."))
	if !found {
		t.Fatal("the common cases are gone")
	}
	cases := uncomment(string(comments))
	if len(cases) < 9 {
		t.Fatalf("got %d cases, want at least 9", len(cases))
	}
	for _, text := range cases {
		site, _, _ := strings.Cut(text, " ")
		t.Run(site, func(t *testing.T) {
			if !strings.Contains(text, "sse_fanout") {
				t.Error("the case does not show sse_fanout")
			}
			if got := string(caddyfile.Format([]byte(text))); got != text {
				t.Errorf("the case is not as caddy fmt would write it; got %s", got)
			}
			validate(t, []byte(text))
		})
	}
	t.Run("together", func(t *testing.T) { validate(t, []byte(strings.Join(cases, "\n"))) })
}

// uncomment returns the configuration in comments: runs of lines that begin
// with "#" and a tab, with "#" alone as an empty line among them.
func uncomment(text string) []string {
	var cases []string
	var current strings.Builder
	for line := range strings.Lines(text) {
		if code, ok := strings.CutPrefix(line, "#\t"); ok {
			current.WriteString(code)
		} else if line == "#\n" && current.Len() > 0 {
			current.WriteString("\n")
		} else if current.Len() > 0 {
			cases = append(cases, current.String())
			current.Reset()
		}
	}
	if current.Len() > 0 {
		cases = append(cases, current.String())
	}
	return cases
}

// validate does what caddy validate does, and takes a warning for an error.
func validate(t *testing.T, text []byte) {
	t.Helper()
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatalf("adapting: %v", err)
	}
	for _, w := range warnings {
		t.Errorf("got warning %s", w)
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatalf("reading adapted configuration: %v", err)
	}
	if err := caddy.Validate(&config); err != nil {
		t.Errorf("validating: %v", err)
	}
}
