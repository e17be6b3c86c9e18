// Command app is what the engine's tests run in containers. Its first argument says what to do.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	switch os.Args[1] {
	case "serve":
		serve()
	case "say": // say STREAM TEXT…
		out := map[string]*os.File{"stdout": os.Stdout, "stderr": os.Stderr}
		for i := 2; i+1 < len(os.Args); i += 2 {
			io.WriteString(out[os.Args[i]], os.Args[i+1])
		}
	case "flood": // flood LINES: write as fast as possible, then say on stderr how long it took
		n, _ := strconv.Atoi(os.Args[2])
		line := append(bytes.Repeat([]byte("x"), 1000), '\n')
		for range n {
			os.Stdout.Write(line)
		}
		fmt.Fprintln(os.Stderr, "written")
	case "reopen": // write through /dev/stdout, as nginx does
		if err := os.WriteFile("/dev/stdout", []byte("reopened\n"), 0); err != nil {
			fmt.Println(err)
		}
	case "exit":
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	case "segv":
		signal.Reset()
		syscall.Kill(os.Getpid(), syscall.SIGKILL) // refused: PID 1 can't kill itself
		os.Exit(9)
	case "eat": // eat BYTES
		n, _ := strconv.Atoi(os.Args[2])
		b := make([]byte, n)
		for i := 0; i < n; i += 4096 {
			b[i] = 1
		}
		fmt.Println("ate it")
	case "crowd": // crowd BYTES THREADS: have so many until SIGTERM
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		n, _ := strconv.Atoi(os.Args[2])
		b := make([]byte, n)
		for i := 0; i < n; i += 4096 {
			b[i] = 1
		}
		threads, _ := strconv.Atoi(os.Args[3])
		up := make(chan bool)
		for range threads {
			go func() {
				runtime.LockOSThread()
				up <- true
				syscall.Select(0, nil, nil, nil, nil)
			}()
		}
		for range threads {
			<-up
		}
		fmt.Println("crowded")
		<-c
		fmt.Println(len(b))
	case "write": // write PATH BYTES
		n, _ := strconv.Atoi(os.Args[3])
		if err := os.WriteFile(os.Args[2], make([]byte, n), 0o644); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "wait": // wait for SIGTERM
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("waiting")
		fmt.Println("got", <-c)
		os.Exit(3)
	case "deaf": // never hear SIGTERM
		signal.Ignore(syscall.SIGTERM, syscall.SIGPIPE)
		fmt.Println("waiting")
		time.Sleep(time.Hour)
	case "stubborn": // hear it and go on
		signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM)
		fmt.Println("waiting")
		time.Sleep(time.Hour)
	case "drain": // serve, and on SIGTERM use 200 ms of CPU before the end
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		go serve()
		<-c
		fmt.Println("draining")
		begin, _ := burn(0)
		_, _ = burn(begin + 200*time.Millisecond)
		fmt.Println("drained")
	case "sh": // run the steps of a build: print a file, then write it
		b, err := os.ReadFile(os.Args[2])
		fmt.Printf("%s%v\n", b, err)
		err = os.WriteFile(os.Args[3], []byte("built"), 0o644)
		fmt.Println(err)
	default:
		fmt.Fprintln(os.Stderr, "what is", os.Args[1])
		os.Exit(2)
	}
}

// burn uses CPU until the process has used that much of it in all.
func burn(d time.Duration) (time.Duration, error) {
	for {
		var used syscall.Rusage
		err := syscall.Getrusage(syscall.RUSAGE_SELF, &used)
		if total := time.Duration(used.Utime.Nano() + used.Stime.Nano()); err != nil || total >= d {
			return total, err
		}
	}
}

func serve() {
	answer := func(path string, fn func(r *http.Request) (any, error)) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			v, err := fn(r)
			if err != nil {
				http.Error(w, err.Error(), 500)
				return
			}
			if s, ok := v.(string); ok {
				io.WriteString(w, s)
				return
			}
			json.NewEncoder(w).Encode(v)
		})
	}
	answer("/", func(*http.Request) (any, error) { return "hello", nil })
	answer("/info", func(*http.Request) (any, error) {
		dir, _ := os.Getwd()
		host, _ := os.Hostname()
		groups, _ := os.Getgroups()
		return map[string]any{"args": os.Args, "env": os.Environ(), "dir": dir, "uid": os.Getuid(), "gid": os.Getgid(),
			"groups": groups, "host": host}, nil
	})
	answer("/get", func(r *http.Request) (any, error) {
		client := &http.Client{Timeout: 10 * time.Second}
		resp, err := client.Get(r.FormValue("url"))
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	})
	answer("/lookup", func(r *http.Request) (any, error) { return net.LookupHost(r.FormValue("name")) })
	answer("/read", func(r *http.Request) (any, error) {
		b, err := os.ReadFile(r.FormValue("path"))
		return string(b), err
	})
	answer("/head", func(r *http.Request) (any, error) { // four bytes of a device
		f, err := os.Open(r.FormValue("path"))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b := make([]byte, 4)
		_, err = io.ReadFull(f, b)
		return fmt.Sprintf("%x", b), err
	})
	answer("/open", func(r *http.Request) (any, error) { // for reading
		f, err := os.Open(r.FormValue("path"))
		if err != nil {
			return err.Error(), nil
		}
		return "", f.Close()
	})
	answer("/append", func(r *http.Request) (any, error) {
		f, err := os.OpenFile(r.FormValue("path"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteString(r.FormValue("text"))
		return "", errors.Join(err, f.Close())
	})
	answer("/rename", func(r *http.Request) (any, error) {
		return "", os.Rename(r.FormValue("from"), r.FormValue("to"))
	})
	answer("/stat", func(r *http.Request) (any, error) {
		st, err := os.Stat(r.FormValue("path"))
		if err != nil {
			return nil, err
		}
		sys := st.Sys().(*syscall.Stat_t)
		return map[string]any{"mode": st.Mode().String(), "uid": sys.Uid, "gid": sys.Gid, "size": st.Size()}, nil
	})
	answer("/list", func(r *http.Request) (any, error) {
		entries, err := os.ReadDir(r.FormValue("path"))
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names, err
	})
	answer("/spin", func(r *http.Request) (any, error) {
		more, err := time.ParseDuration(r.FormValue("more"))
		start := time.Now()
		if err == nil {
			var used time.Duration
			if used, err = burn(0); err == nil {
				_, err = burn(used + more)
			}
		}
		return time.Since(start).String(), err
	})
	answer("/background", func(r *http.Request) (any, error) { // go on using CPU after the answer
		go func() { _, _ = burn(time.Hour) }()
		return "", nil
	})
	answer("/eat", func(r *http.Request) (any, error) {
		n, err := strconv.Atoi(r.FormValue("bytes"))
		b := make([]byte, n)
		for i := 0; i < n; i += 4096 {
			b[i] = 1
		}
		return len(b), err
	})
	var sick atomic.Bool
	answer("/sicken", func(r *http.Request) (any, error) { sick.Store(true); return "", nil })
	answer("/alive", func(r *http.Request) (any, error) {
		if sick.Load() {
			return nil, errors.New("sick")
		}
		return "", nil
	})
	answer("/escapes", func(r *http.Request) (any, error) {
		return escapes(r.FormValue("host"),
			r.FormValue("abstract")), nil
	})

	addr := ":" + os.Getenv("PORT")
	if len(os.Args) > 2 {
		addr = os.Args[2]
	}
	if err := http.ListenAndServe(addr, nil); err != nil {
		fmt.Fprintln(os.Stderr, strings.TrimSpace(err.Error()))
		os.Exit(1)
	}
}
