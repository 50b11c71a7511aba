package wire

import (
	"net"
	"sync"
)

// A Proxy is a way from one side to another that can be cut, or swallow what is
// sent, as a network does that has lost a router: both ends then have a
// connection that is half open.
type Proxy struct {
	ln     net.Listener
	target string
	all    sync.WaitGroup

	mu sync.Mutex

	// Guarded by mu.
	links     map[*link]struct{}
	swallows  bool
	limit     func() int
	most, sum int
}

// NewProxy relays connections to target.
func NewProxy(target string) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{ln: ln, target: target, links: make(map[*link]struct{})}
	p.all.Go(p.serve)
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Close ends the proxy and all connections.
func (p *Proxy) Close() {
	_ = p.ln.Close()
	p.Cut(0)
	p.all.Wait()
}

// Limit makes each connection from now on be reset after as many bytes to the
// client as f says; negative: it is not.
func (p *Proxy) Limit(f func() int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = f
}

// Cut resets each open connection once as many more bytes have gone to the
// client.
func (p *Proxy) Cut(after int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cutAfter(after)
	}
}

// Swallow makes what is sent on all connections vanish. When it ends, those that
// have lost something stay as they are, open and silent.
func (p *Proxy) Swallow(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallows = on
}

// Count tells how many connections there are, were at most, and were in all.
func (p *Proxy) Count() (now, most, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links), p.most, p.sum
}

func (p *Proxy) serve() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.relay(client) })
	}
}

// A link is one connection through the proxy.
type link struct {
	client, server net.Conn

	mu     sync.Mutex
	budget int // bytes to the client until the cut; negative: no cut
	dead   bool
}

func (p *Proxy) relay(client net.Conn) {
	l := &link{client: client, budget: -1}
	p.mu.Lock()
	if p.limit != nil {
		l.budget = p.limit()
	}
	p.links[l] = struct{}{}
	p.most = max(p.most, len(p.links))
	p.sum++
	p.mu.Unlock()

	server, err := net.Dial("tcp", p.target)
	if err == nil {
		l.mu.Lock()
		l.server = server
		l.mu.Unlock()
		var back sync.WaitGroup
		back.Go(func() { p.copy(l, client, server, true) })
		p.copy(l, server, client, false)
		back.Wait()
	}
	p.forget(l)
	l.reset()
}

// forget takes a link off the count before it closes, for whoever sees it
// closed may open the next at once.
func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// copy takes bytes from one side to the other until either is closed.
func (p *Proxy) copy(l *link, to, from net.Conn, toClient bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.lost(l) {
			out, cut := buf[:n], false
			if toClient {
				out, cut = l.take(out)
			}
			if _, werr := to.Write(out); werr != nil {
				err = werr
			}
			if cut {
				p.forget(l)
				l.reset()
				return
			}
		}
		if err != nil {
			p.forget(l)
			_ = to.Close()
			_ = from.Close()
			return
		}
	}
}

// lost says whether what was just sent over a link has vanished.
func (p *Proxy) lost(l *link) bool {
	p.mu.Lock()
	swallows := p.swallows
	p.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = l.dead || swallows
	return l.dead
}

func (l *link) take(out []byte) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.budget < 0 {
		return out, false
	}
	if l.budget > len(out) {
		l.budget -= len(out)
		return out, false
	}
	out = out[:l.budget]
	l.budget = 0
	return out, true
}

func (l *link) cutAfter(bytes int) {
	l.mu.Lock()
	l.budget = bytes
	l.mu.Unlock()
	if bytes == 0 {
		l.reset()
	}
}

// reset closes both sides without the ceremony.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
		}
	}
}
