package eventsource

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Connection says how connections are made.
type Connection struct {
	Insecure bool // do not verify the server's certificate
	HTTP1    bool // do not use HTTP/2
}

// Transport returns a round tripper that does not compress on its own.
func (c Connection) Transport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(!c.HTTP1)
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: c.Insecure}, //nolint:gosec // it is what --insecure asks for
		TLSHandshakeTimeout: 15 * time.Second,
		DisableCompression:  true,
		Protocols:           protocols,
	}
}

// ParseURL reads the URL of a stream as a person would write it: without a
// scheme it is http for this machine, and https for any other.
func ParseURL(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("the URL is empty")
	}
	if !strings.Contains(text, "://") {
		scheme := "https://"
		if rest, ok := strings.CutPrefix(text, ":"); ok {
			text = "localhost:" + rest
		}
		host, _, _ := strings.Cut(text, "/")
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback() {
			scheme = "http://"
		}
		text = scheme + text
	}
	u, err := url.Parse(text)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, fmt.Errorf("%q is not a URL: %w", text, err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%q is not an http or https URL", text)
	case u.Hostname() == "":
		return nil, fmt.Errorf("the URL %q has no host", text)
	}
	u.Fragment = ""
	return u, nil
}

// ParseHeader reads request headers, each as in "Name: value".
func ParseHeader(lines []string) (http.Header, error) {
	header := make(http.Header)
	for _, line := range lines {
		name, value, found := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !found:
			return nil, fmt.Errorf(`header %q has no colon: it is to be "Name: value"`, line)
		case !isToken(name):
			return nil, fmt.Errorf(`header %q: %q is not the name of a header`, line, name)
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return nil, fmt.Errorf("header %q: the value has a control character", name)
		}
		header.Add(name, value)
	}
	return header, nil
}

// CheckLastEventID reports an id that no header can carry.
func CheckLastEventID(id string) error {
	if strings.ContainsFunc(id, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return fmt.Errorf("the last event id %q has a control character", id)
	}
	return nil
}

func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
