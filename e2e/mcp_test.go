package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// An mcpServer is a server of MCP's HTTP+SSE transport, by its TypeScript SDK.
type mcpServer struct {
	*origin
	dir string // of its scripts, with the packages that they need
}

// mcp installs the SDK and runs a server.
func mcp(t *testing.T) *mcpServer {
	t.Helper()
	binary := program(t, "nodejs", "node")
	dir := installed(t, "testdata/mcp")
	server := child(t, "MCP server", func(int) *exec.Cmd {
		return exec.Command(binary, filepath.Join(dir, "server.js"))
	})
	return &mcpServer{server, dir}
}

// installed returns a copy of a directory of scripts, with the packages that they need.
func installed(t *testing.T, scripts string) (dir string) {
	t.Helper()
	npm := program(t, "npm", "npm")
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(scripts)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	install.Env = append(os.Environ(), "npm_config_cache="+t.TempDir())
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("installing the packages of %s: %v\n%s", scripts, err, out)
	}
	return dir
}

// stats returns how many sessions and public streams were opened.
func (s *mcpServer) stats(t *testing.T) (opened struct{ Sessions, Streams, Now int }) {
	t.Helper()
	resp, err := http.Get("http://" + s.addr + "/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&opened); err != nil {
		t.Fatal(err)
	}
	return opened
}

// expectOwnAnswers runs clients at once, checks that each has got the answers to
// its own calls, and returns what went wrong before that.
func (s *mcpServer) expectOwnAnswers(t *testing.T, url string, names ...string) (problems []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "nodejs", "node"),
		append([]string{filepath.Join(s.dir, "clients.js"), url}, names...)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running the clients %q: %v\n%s", names, err, log.Bytes())
	}
	var results []struct {
		Name            string
		Answers, Errors []string
	}
	if err := json.Unmarshal(out, &results); err != nil || len(results) != len(names) {
		t.Fatalf("the clients %q have said %q: %v", names, out, err)
	}
	for _, result := range results {
		var want []string
		for i := range 5 {
			want = append(want, fmt.Sprint(result.Name, " ", i+1))
		}
		if !slices.Equal(result.Answers, want) {
			t.Errorf("%s was answered %q, want %q", result.Name, result.Answers, want)
		}
		problems = append(problems, result.Errors...)
	}
	return problems
}

// Each client of MCP's HTTP+SSE transport asks for the same URL and gets a session
// of its own, which nothing but the first event tells.
func TestMCPSessionsAreNotShared(t *testing.T) {
	server := mcp(t)
	t.Run("wrapping", func(t *testing.T) {
		caddy := runCaddy(t, "", fmt.Sprintf("HTTP {\n\tsse_fanout\n\treverse_proxy %s\n}", server.addr))
		before := server.stats(t)
		expect := func(names ...string) {
			t.Helper()
			if problems := server.expectOwnAnswers(t, caddy.http, names...); len(problems) > 0 {
				t.Errorf("the clients %q have noticed %q", names, problems)
			}
		}
		expect("alice", "bob")
		expect("carol")
		crowd := join(t, httpClient(t, "h1"), caddy.http+"/events", 10, 5)
		expect("dave", "erin")
		crowd.await(t, 10, 30*time.Second)

		after := server.stats(t)
		// One was opened to find out.
		if n := after.Sessions - before.Sessions; n != 6 {
			t.Errorf("%d sessions were opened for 5 clients, want 6", n)
		}
		if n := after.Streams - before.Streams; n != 1 {
			t.Errorf("%d public streams were opened for 10 clients, want 1", n)
		}
		eventually(t, 10*time.Second, func() error {
			if n := server.stats(t).Now; n != 0 {
				return fmt.Errorf("%d sessions are open, with no client left", n)
			}
			return nil
		})
	})
	t.Run("endpoint", func(t *testing.T) {
		caddy := runCaddy(t, "", fmt.Sprintf("HTTP {\n\tsse_fanout %s\n}", server.addr))
		// The first ones may have their header already, and must come back.
		server.expectOwnAnswers(t, caddy.http, "alice", "bob")
		if problems := server.expectOwnAnswers(t, caddy.http, "carol", "dave"); len(problems) > 0 {
			t.Errorf("the clients have noticed %q", problems)
		}
	})
	t.Run("as without the line", func(t *testing.T) {
		plain := runCaddy(t, "", fmt.Sprintf("HTTP {\n\treverse_proxy %s\n}", server.addr))
		fanned := runCaddy(t, "", fmt.Sprintf("HTTP {\n\tsse_fanout\n\treverse_proxy %s\n}", server.addr))
		begin := func(c *caddy) (status string, header http.Header, first string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			s, err := subscribe(ctx, httpClient(t, "h1"), c.http+"/sse")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Body.Close()
			line, err := s.lines.ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			s.Header.Del("Date")
			return s.Status, s.Header, line
		}
		for range 2 {
			wantStatus, wantHeader, wantLine := begin(plain)
			status, header, line := begin(fanned)
			if status != wantStatus || line != wantLine || fmt.Sprint(header) != fmt.Sprint(wantHeader) {
				t.Errorf("got %s, %v, %q; want %s, %v, %q", status, header, line, wantStatus, wantHeader, wantLine)
			}
		}
	})
}
