<?php
// Prints which names PHP files define and use, in full, by nikic/PHP-Parser and its NameResolver.
//
//     php main.php PARSER FOLDER      PARSER is the folder that holds PhpParser/
//
// Lines: "file PATH", "define KIND NAME PATH", "use KIND NAME FALLBACK PATH", "include TARGET PATH".

spl_autoload_register(function (string $class) use ($argv): void {
    $file = $argv[1] . '/' . str_replace('\\', '/', $class) . '.php';
    if (is_file($file)) {
        require $file;
    }
});

use PhpParser\ConstExprEvaluator;
use PhpParser\Node;

final class Names extends PhpParser\NodeVisitorAbstract
{
    public array $lines = [];
    private array $parents = [];

    public function __construct(private string $path, private string $real)
    {
    }

    private function value(Node\Expr $expr): ?string
    {
        $evaluator = new ConstExprEvaluator(function (Node\Expr $expr) use (&$evaluator) {
            if ($expr instanceof Node\Scalar\MagicConst\Dir) {
                return dirname($this->real);
            }
            if ($expr instanceof Node\Scalar\MagicConst\File) {
                return $this->real;
            }
            if ($expr instanceof Node\Expr\FuncCall && $expr->name instanceof Node\Name
                && $expr->name->getLast() === 'dirname') {
                $arguments = array_map(fn ($each) => $evaluator->evaluateSilently($each->value), $expr->args);
                return dirname(...$arguments);
            }
            throw new PhpParser\ConstExprEvaluationException('unknown');
        });
        try {
            return (string) $evaluator->evaluateSilently($expr);
        } catch (PhpParser\ConstExprEvaluationException) {
            return null;
        }
    }

    public function enterNode(Node $node)
    {
        $parent = end($this->parents);
        $this->parents[] = $node;
        if ($node instanceof Node\Stmt\ClassLike && isset($node->namespacedName)) {
            $this->lines[] = "define\tclass\t{$node->namespacedName}\t{$this->path}";
        } elseif ($node instanceof Node\Stmt\Function_) {
            $this->lines[] = "define\tfunction\t{$node->namespacedName}\t{$this->path}";
        } elseif ($node instanceof Node\Const_ && isset($node->namespacedName)) {
            $this->lines[] = "define\tconst\t{$node->namespacedName}\t{$this->path}";
        } elseif ($node instanceof Node\Stmt\UseUse) {
            $type = $node->type ?: $parent->type;
            $prefix = $parent instanceof Node\Stmt\GroupUse ? $parent->prefix . '\\' : '';
            $kind = [1 => 'class', 2 => 'function', 3 => 'const'][$type];
            $this->lines[] = "use\t$kind\t$prefix{$node->name}\t\t{$this->path}";
        } elseif ($node instanceof Node\Expr\Include_) {
            $target = $this->value($node->expr);
            if ($target !== null) {
                $this->lines[] = "include\t$target\t{$this->path}";
            }
        } elseif ($node instanceof Node\Name && !($parent instanceof Node\Stmt\UseUse)
            && !($parent instanceof Node\Stmt\Namespace_) && !($parent instanceof Node\Stmt\GroupUse)
            && !$node->isSpecialClassName()) {
            $kind = $parent instanceof Node\Expr\FuncCall ? 'function'
                : ($parent instanceof Node\Expr\ConstFetch ? 'const' : 'class');
            $full = $node->getAttribute('namespacedName');
            $this->lines[] = $full === null ? "use\t$kind\t$node\t\t{$this->path}"
                : "use\t$kind\t$full\t$node\t{$this->path}";
        }
    }

    public function leaveNode(Node $node)
    {
        array_pop($this->parents);
    }
}

$root = realpath($argv[2]);
$parser = (new PhpParser\ParserFactory)->create(PhpParser\ParserFactory::PREFER_PHP7);
$files = new RecursiveIteratorIterator(new RecursiveDirectoryIterator($root, FilesystemIterator::SKIP_DOTS));
foreach ($files as $file) {
    if ($file->getExtension() !== 'php') {
        continue;
    }
    $path = substr($file->getPathname(), strlen($root) + 1);
    try {
        $tree = $parser->parse(file_get_contents($file->getPathname()));
    } catch (PhpParser\Error) {
        continue;
    }
    $names = new Names($path, $file->getPathname());
    foreach ([new PhpParser\NodeVisitor\NameResolver, $names] as $visitor) {
        $traverser = new PhpParser\NodeTraverser;
        $traverser->addVisitor($visitor);
        $tree = $traverser->traverse($tree);
    }
    echo "file\t$path\n", implode("\n", array_unique($names->lines)), "\n";
}
