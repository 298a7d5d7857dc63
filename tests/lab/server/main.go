// A test server that answers with its host name, and a client that counts what
// fails while the server's nodes are being changed.
//
//	server                           serves on :8080
//	server client URL [INTERVAL_MS]  requests URL over and over, serves its counts on :8081
//	server get URL                   requests URL once and prints the answer
//	server report                    serves on :8080 what a process sees of its container
//	server count [INTERVAL_MS]       prints 1, 2, 3 and so on
//	server sleep                     does nothing until it is told to end
//
// ADDRESS in the environment changes where it listens, TIMEOUT for how long a client waits
// for an answer (1s). On SIGTERM it exits at once,
// unless GRACE in the environment names a time (10s): a server then goes on serving for
// that long, because not every proxy has heard yet that its pod is ending; it finishes
// the requests that it has, and exits.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	if timeout, err := time.ParseDuration(os.Getenv("TIMEOUT")); err == nil {
		requests.Timeout = timeout
	}
	go func() {
		<-ending()
		if os.Getenv("GRACE") == "" {
			os.Exit(0)
		}
	}()

	mode := "serve"
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch {
	case mode == "serve":
		serve(":8080", func(w http.ResponseWriter, _ *http.Request) {
			name, _ := os.Hostname()
			fmt.Fprintln(w, name)
		})
	case mode == "client" && len(os.Args) > 2:
		client(os.Args[2], interval(os.Args[3:]))
	case mode == "get" && len(os.Args) > 2:
		answer, err := get(os.Args[2])
		if err != nil {
			fail(err)
		}
		fmt.Print(answer)
	case mode == "report":
		serve(":8080", func(w http.ResponseWriter, _ *http.Request) { report(w) })
	case mode == "count":
		every := time.Tick(interval(os.Args[2:]))
		for number := 1; ; number++ {
			fmt.Println(number)
			<-every
		}
	case mode == "sleep":
		select {}
	default:
		fail("usage: server [client URL [INTERVAL_MS] | get URL | report | count [INTERVAL_MS] | sleep]")
	}
}

func serve(address string, handler http.HandlerFunc) {
	if given := os.Getenv("ADDRESS"); given != "" {
		address = given
	}
	grace, err := time.ParseDuration(os.Getenv("GRACE"))
	if err != nil {
		fail(http.ListenAndServe(address, handler))
	}
	server := http.Server{Addr: address, Handler: handler}
	ended := make(chan error)
	go func() {
		<-ending()
		time.Sleep(grace)
		ended <- server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fail(err)
	}
	if err := <-ended; err != nil {
		fail(err)
	}
}

func ending() <-chan os.Signal {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	return end
}

func fail(reason interface{}) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}

func interval(arguments []string) time.Duration {
	if len(arguments) > 0 {
		if n, err := strconv.Atoi(arguments[0]); err == nil && n > 0 {
			return time.Duration(n) * time.Millisecond
		}
	}
	return 20 * time.Millisecond
}

// Each request has a connection of its own, so that each takes the way through
// the Service anew.
var requests = http.Client{
	Timeout:   time.Second,
	Transport: &http.Transport{DisableKeepAlives: true},
}

func get(url string) (string, error) {
	response, err := requests.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", response.Status)
	}
	return string(body), err
}

// client prints a line per failed request and the counts each ten seconds.
func client(url string, every time.Duration) {
	var lock sync.Mutex
	var ok, failed int
	counts := func() string {
		lock.Lock()
		defer lock.Unlock()
		return fmt.Sprintf("ok=%d failed=%d", ok, failed)
	}
	go serve(":8081", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, counts())
	})
	go func() {
		for range time.Tick(10 * time.Second) {
			fmt.Println(counts())
		}
	}()
	for range time.Tick(every) {
		_, err := get(url)
		lock.Lock()
		if err == nil {
			ok++
		} else {
			failed++
			fmt.Println(time.Now().UTC().Format(time.RFC3339Nano), err)
		}
		lock.Unlock()
	}
}
