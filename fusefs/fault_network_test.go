package fusefs_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// network is the line between a mount and the API: a TCP proxy with faults. It is a
// process of its own, because the proxy never ends a goroutine that was writing to
// a broken connection.
type network struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

// newNetwork returns a stack whose calls all go through the proxy.
func newNetwork(t *testing.T) (*stack, *network) {
	n := &network{t: t}
	s := newStack(t, stackOptions{Line: n.start})
	return s, n
}

// start starts the proxy and returns its address.
func (n *network) start(api string) string {
	cmd := exec.Command("/proc/self/exe", api)
	cmd.Env = append(os.Environ(), "FUSEFS_TEST_HELPER=line")
	cmd.Stderr = os.Stderr
	var err error
	n.in, err = cmd.StdinPipe()
	require.NoError(n.t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(n.t, err)
	n.out = bufio.NewReader(out)
	require.NoError(n.t, cmd.Start())
	n.t.Cleanup(func() {
		require.NoError(n.t, n.in.Close())
		require.NoError(n.t, cmd.Wait())
	})
	return n.do("up")
}

// do sends the proxy a command and returns the proxy's address afterwards.
func (n *network) do(what string) string {
	n.t.Helper()
	_, err := fmt.Fprintln(n.in, what)
	require.NoError(n.t, err)
	addr, err := n.out.ReadString('\n')
	require.NoError(n.t, err)
	return strings.TrimSpace(addr)
}

// up accepts connections again, at the address that the proxy had before.
func (n *network) up() { n.do("up") }

// down breaks all connections and refuses new ones.
func (n *network) down() { n.do("down") }

// add adds a fault to the line, until remove.
func (n *network) add(direction, kind, attributes string) {
	n.do(fmt.Sprintf(`{"name": "toxic", "type": %q, "stream": %q, "attributes": {%s}}`, kind, direction, attributes))
}

func (n *network) remove() { n.do("remove") }

// lineHelper is the proxy. It reads one command a line.
func lineHelper(args []string) error {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, "line", "127.0.0.1:0", args[0])
	for words := bufio.NewScanner(os.Stdin); words.Scan(); {
		var err error
		switch what := words.Text(); what {
		case "up":
			err = proxy.Start()
		case "down":
			proxy.Stop()
		case "remove":
			err = proxy.Toxics.RemoveToxic(context.Background(), "toxic")
		default:
			_, err = proxy.Toxics.AddToxicJson(strings.NewReader(what))
		}
		if err != nil {
			return err
		}
		fmt.Println(proxy.Listen)
	}
	return nil
}

// TestSlowLine: a slow line makes nothing fail.
func TestSlowLine(t *testing.T) {
	s, line := newNetwork(t)
	src, content := source(t, partSize+partSize/8)
	for _, c := range []struct{ direction, kind, attributes string }{
		{"upstream", "latency", `"latency": 30, "jitter": 20`},
		{"downstream", "latency", `"latency": 30, "jitter": 20`},
		{"upstream", "bandwidth", `"rate": 4000`},
		{"upstream", "slicer", `"average_size": 1500, "size_variation": 700`},
		{"downstream", "slicer", `"average_size": 3, "size_variation": 1`},
	} {
		name := c.kind + " " + c.direction
		t.Run(name, func(t *testing.T) {
			before := s.API.Stats().PartsStored
			line.add(c.direction, c.kind, c.attributes)
			defer line.remove()
			s.run(`cp "$1" "$2"`, src, name)
			s.one(t, name, content)
			require.Equal(t, before+2, s.API.Stats().PartsStored, "nothing is sent twice")
		})
	}
}

// TestBadLine breaks connections in every way until the file is retried.
func TestBadLine(t *testing.T) {
	s, line := newNetwork(t)
	src, content := source(t, partSize+partSize/8)
	for _, c := range []struct{ direction, kind, attributes string }{
		{"upstream", "limit_data", fmt.Sprintf(`"bytes": %d`, partSize/2)}, // in the middle of a part
		{"downstream", "limit_data", `"bytes": 100`},                       // in the middle of an answer
		{"upstream", "timeout", `"timeout": 50`},                           // bytes go nowhere, then the end
		{"downstream", "timeout", `"timeout": 50`},
		{"upstream", "reset_peer", `"timeout": 0`},
		{"downstream", "reset_peer", `"timeout": 0`}, // done, and the answer lost
	} {
		name := c.kind + " " + c.direction
		t.Run(name, func(t *testing.T) {
			line.add(c.direction, c.kind, c.attributes)
			copied := s.copy(src, name)
			s.retrying(t, name, "no answer")
			line.remove()
			require.NoError(t, <-copied)
			s.one(t, name, content)
		})
	}
}

// TestEndpointAway: the endpoint goes away in the middle of a copy and comes back.
func TestEndpointAway(t *testing.T) {
	s, line := newNetwork(t)
	src, content := source(t, partSize+partSize/8)
	line.down()
	copied := s.copy(src, "away")
	s.retrying(t, "away", "refused")
	line.up()
	require.NoError(t, <-copied)
	s.one(t, "away", content)
	require.Equal(t, int64(1), s.API.Stats().UploadsCreated)

	began, open := blockCalls(s.API, "part")
	copied = s.copy(src, "cut off")
	<-began
	line.down()
	open()
	s.retrying(t, "cut off", "no answer")
	line.up()
	require.NoError(t, <-copied)
	s.one(t, "cut off", content)
	require.Equal(t, int64(2), s.API.Stats().UploadsCreated, "what was declared still stands")
}
