<?php
// A ticker: one answer of several minutes with a line per second, as games have for their live scores.
declare(strict_types=1);

const EVERY_US = 1_000_000;
const LINES = 600;

header('Content-Type: text/plain');
header('Cache-Control: no-store');
header('Content-Encoding: identity'); // otherwise each line would wait for a block to compress
ob_end_flush(); // php.ini's own buffer
for ($line = 0; $line < LINES && connection_status() === CONNECTION_NORMAL; $line++) {
    echo $line, "\n";
    flush();
    usleep(EVERY_US);
}
echo "end\n"; // an answer that breaks lacks it
