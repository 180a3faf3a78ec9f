package local_test

import (
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"

	"uploadfs/uploader/api/local"
)

// childDir, in the environment, makes this binary a server to be killed. See TestKilledServerLosesNothing.
const childDir = "UPLOADFS_TEST_SERVER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, serveUntilKilled(dir))
		os.Exit(1)
	}
	// net/http closes a connection half a second after the answer, so that its client can read it.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

func serveUntilKilled(dir string) error {
	srv, err := local.Open(local.Options{Dir: dir, Key: testKey})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return srv.Serve(l)
}
