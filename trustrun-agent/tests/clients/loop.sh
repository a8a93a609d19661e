#!/bin/bash
for i in 1 2 3 4; do scope stopping --nocapture; done
hooks
process sessions --test-threads 2
failure without --test-threads 2
