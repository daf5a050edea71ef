<?php
// A ticker: a line a second on one answer that goes on for minutes, as games have for their live scores.
declare(strict_types=1);

const EVERY_US = 1_000_000;
const LINES = 600;

header('Content-Type: text/plain');
header('Cache-Control: no-store');
header('Content-Encoding: identity'); // or each line would wait for a block that is worth packing
ob_end_flush(); // php.ini's own buffer
for ($line = 0; $line < LINES && connection_status() === CONNECTION_NORMAL; $line++) {
    echo $line, "\n";
    flush();
    usleep(EVERY_US);
}
echo "end\n"; // an answer that breaks off has not got it
