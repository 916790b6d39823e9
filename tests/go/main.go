// A server and a client as the documentation of the official Go SDK has them, with its defaults: both eras.
//
//	go-tools server [stdio|PORT [NOTE]]
//	go-tools client TASK
package main

import (
	"log"
	"os"
)

func main() {
	arguments := append(os.Args[1:], "", "", "")
	switch arguments[0] {
	case "server":
		if err := serve(arguments[1], arguments[2]); err != nil {
			log.Fatal(err)
		}
	case "client":
		visit(arguments[1])
	default:
		log.Fatalf("%q is neither server nor client", arguments[0])
	}
}
