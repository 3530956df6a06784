#!/bin/sh
# A worker for tests: its setup line is a script. Messages are lines on descriptor 0, and so are reports.
IFS= read -r setup
eval "$setup"
