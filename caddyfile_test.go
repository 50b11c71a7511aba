package ssefanout

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// TestCaddyfileAdapt adapts the Caddyfile in each file of
// testdata/caddyfile_adapt. After a line of dashes, as in Caddy's own tests,
// comes the JSON that it must result in, or the error, in full.
func TestCaddyfileAdapt(t *testing.T) {
	for _, tc := range readAdaptTests(t) {
		t.Run(tc.name, func(t *testing.T) {
			got, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(tc.caddyfile), nil)
			for _, w := range warnings {
				t.Errorf("got warning %s", w)
			}
			if !strings.HasPrefix(tc.want, "{") {
				if err == nil || err.Error() != tc.want {
					t.Errorf("got error %v,\nwant %s", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, got, "", "\t"); err != nil {
				t.Fatal(err)
			}
			if pretty.String() != tc.want {
				t.Errorf("got\n%s\nwant\n%s", &pretty, tc.want)
			}

			// What the grammar lets through must also work.
			var config caddy.Config
			if err := json.Unmarshal(got, &config); err != nil {
				t.Fatal(err)
			}
			if err := caddy.Validate(&config); err != nil {
				t.Errorf("validating: %v", err)
			}
		})
	}
}

// TestUsage keeps the three places together where an option is written down:
// what errors say, the grammar in the documentation, and a test of each.
func TestUsage(t *testing.T) {
	source, err := os.ReadFile("caddyfile.go")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for line := range strings.Lines(string(source)) {
		documented[strings.Join(strings.Fields(line), " ")] = true
	}
	tests := readAdaptTests(t)
	for _, name := range slices.Sorted(maps.Keys(settings.Grammar)) {
		if line := "// " + name + " " + settings.Grammar[name].Syntax; !documented[line] {
			t.Errorf("the documentation of UnmarshalCaddyfile does not have %q", line)
		}
		valid, invalid := false, false
		for _, tc := range tests {
			if strings.Contains(tc.caddyfile, "\n\t\t"+name+" ") {
				isError := !strings.HasPrefix(tc.want, "{")
				valid, invalid = valid || !isError, invalid || isError
			}
		}
		if !valid || !invalid {
			t.Errorf("got no test of %s (valid: %t, invalid: %t)", name, valid, invalid)
		}
	}
}

// FuzzUnmarshalCaddyfile checks that no input makes the parser panic, and that
// what it accepts is accepted by Provision and Validate, too.
func FuzzUnmarshalCaddyfile(f *testing.F) {
	for _, tc := range readAdaptTests(f) {
		if _, block, found := strings.Cut(tc.caddyfile, "sse_fanout"); found {
			f.Add(block)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte("sse_fanout "+text), "Caddyfile")
		if err != nil {
			t.Skip()
		}
		h := new(Handler)
		if err := h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			return
		}
		s, err := settings.New(h.Options, h.wraps())
		if err != nil {
			t.Fatalf("provisioning: %v", err)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("validating: %v", err)
		}
	})
}

type adaptTest struct{ name, caddyfile, want string }

func readAdaptTests(t testing.TB) []adaptTest {
	t.Helper()
	files, err := filepath.Glob("testdata/caddyfile_adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("found no tests: %v", err)
	}
	var tests []adaptTest
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		input, want, found := strings.Cut(string(text), "----------\n")
		if !found {
			t.Fatalf("%s has no line of dashes", file)
		}
		tests = append(tests, adaptTest{
			name:      strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"),
			caddyfile: input,
			want:      strings.TrimSuffix(want, "\n"),
		})
	}
	return tests
}
