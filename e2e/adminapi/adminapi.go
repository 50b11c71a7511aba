// Package adminapi speaks to the admin endpoint of a Caddy process that is reloaded
// often.
package adminapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// attempts is how often a request is sent before its failure is believed.
const attempts = 10

// Endpoint is the URL of an admin endpoint, without a path.
type Endpoint string

// Load gives the process a configuration, also if it is the one that it has. The error
// of a configuration that does not load has the answer in it.
func (e Endpoint) Load(ctx context.Context, caddyfile string) error {
	_, err := e.ask(ctx, http.MethodPost, "/load", caddyfile)
	return err
}

// Get returns what the endpoint has at a path.
func (e Endpoint) Get(ctx context.Context, path string) ([]byte, error) {
	return e.ask(ctx, http.MethodGet, path, "")
}

// Figure returns the number that pattern, with one group, finds in a profile.
func (e Endpoint) Figure(ctx context.Context, profile string, pattern *regexp.Regexp) (int, error) {
	body, err := e.Get(ctx, "/debug/pprof/"+profile)
	if err != nil {
		return 0, err
	}
	found := pattern.FindSubmatch(body)
	if found == nil {
		return 0, fmt.Errorf("the profile %s does not say: %.200s", profile, body)
	}
	return strconv.Atoi(string(found[1]))
}

// ask sends a request again if its connection breaks before the answer. Each load
// replaces the listener of the endpoint, and the kernel resets what has connected to
// the old one and waits there to be accepted.
func (e Endpoint) ask(ctx context.Context, method, path, body string) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		answer, err := e.askOnce(ctx, method, path, body)
		if err == nil || !broken(err) || attempt == attempts {
			return answer, err
		}
	}
}

func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)
}

func (e Endpoint) askOnce(ctx context.Context, method, path, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, string(e)+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate") // load it, even if it is the same
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer, err
}
